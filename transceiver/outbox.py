"""Datagrams on their way out, gathered for one send: bundled into trunk datagrams by relay, or as they are.

A path's `local` part says which way a client is reached: empty for our own socket; else the relay's trunk address
followed by the ingress, one byte, that its frames came with.
"""

from __future__ import annotations

from protocol.address import Path, TransportAddress
from protocol.routing import Bundle, Trunk
from udpio import UdpSocket

__all__ = ["Outbox", "relay_local"]


def relay_local(relay: TransportAddress, ingress: int) -> bytes:
    """The `local` part of paths through an ingress of a relay."""
    return relay + bytes((ingress,))


class Outbox:
    """Holds one wake's output; `flush` empties it. What the socket cannot take is dropped, and counted there."""

    __slots__ = ("_bundles", "_direct", "_mtu", "_socket", "_trunk", "frames_sent")

    def __init__(self, socket: UdpSocket, trunk: Trunk | None, mtu: int) -> None:
        self._socket = socket
        self._trunk = trunk
        self._mtu = mtu
        self._direct: list[tuple[bytes, TransportAddress]] = []
        self._bundles: dict[bytes, Bundle] = {}  # by the `local` part of paths
        self.frames_sent = 0

    def send(self, data: bytes, path: Path) -> None:
        local = path.local
        if not local:
            self._direct.append((data, path.remote))
            return
        assert self._trunk is not None  # such paths come from trunk datagrams only
        bundle = self._bundles.get(local)
        if bundle is None:
            bundle = self._bundles[local] = self._trunk.bundle(self._mtu, local[-1])
        bundle.add(path.remote, data)
        self.frames_sent += 1

    def flush(self) -> None:
        if self._direct:
            datagrams, self._direct = self._direct, []
            self._socket.send_batch(datagrams)
        if self._bundles:
            bundles, self._bundles = self._bundles, {}
            self._socket.send_batch(
                [
                    (datagram, TransportAddress(local[:-1]))
                    for local, bundle in bundles.items()
                    for datagram in bundle.finish()
                ]
            )
