"""How a relay that has lost its flows gets them back: trunk datagrams of kind 1 and 2, and what they say.

    hello        boot (8)                     nothing else
    announce     boot (8) in place of the first descriptor (IPv6: and 16 zero bytes), then one descriptor with length 0 for
                 each client whose call the sender carries

Each relay worker draws its boot number when it starts; 0 is none.

1. A transceiver that has heard nothing from a relay for a while says hello with the boot number it knows of it.
2. A relay that hears anything of a transceiver which has not shown its present boot number yet says hello with it.
3. A transceiver that hears a new boot number announces the calls it has there, and says hello with that number.
4. The relay makes flows of them. An announcement under another boot number is void, so one that was recorded before a
   restart is worth nothing after it.

A hello is never answered by anything longer than itself, but by announcements, which only who has calls there sends.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from protocol.address import TransportAddress
from protocol.errors import DecodeError, LocalError
from protocol.routing.trunk import DATAGRAM_OVERHEAD, IPV6, Trunk, TrunkHead, TrunkKind, frame_overhead

__all__ = [
    "BOOT_LENGTH",
    "NO_BOOT",
    "Announcement",
    "announce",
    "hello",
    "is_notice",
    "read_announcement_untrusted",
    "read_hello_untrusted",
]

# Specification constants

BOOT_LENGTH = 8
NO_BOOT = bytes(BOOT_LENGTH)

# Implementation constants

_MTU = 1200  # where bundling is off

_IPV4_DESCRIPTOR = struct.Struct("!2x6s")
_IPV6_DESCRIPTOR = struct.Struct("!2x2s4x16s")
_IPV6_BOOT = struct.Struct("!8s16x")


class Announcement(NamedTuple):
    """These clients' calls are with the sender."""

    boot: bytes
    ingress: int
    clients: list[TransportAddress]


def is_notice(datagram: bytes | memoryview) -> bool:
    """Whether a trunk datagram, genuine or not, claims to be a hello or an announcement."""
    return len(datagram) > 1 and datagram[1] & 0x0F != TrunkKind.FRAMES


def hello(trunk: Trunk, boot: bytes) -> bytes:
    """A datagram. Raises LocalError for anything but 8 bytes."""
    if len(boot) != BOOT_LENGTH:
        raise LocalError(f"a boot number of {len(boot)} bytes")
    return trunk.seal(TrunkHead(TrunkKind.HELLO, False, 0, 0), boot)


def announce(trunk: Trunk, boot: bytes, ingress: int, clients: Iterable[TransportAddress], mtu: int) -> list[bytes]:
    """As few datagrams as the MTU allows; clients of both families may be mixed. None for no clients."""
    families: dict[bool, list[TransportAddress]] = {}
    for client in clients:
        families.setdefault(len(client) == 18, []).append(client)
    datagrams = []
    for is_ipv6, some in families.items():
        size = frame_overhead(some[0])
        most = ((mtu or _MTU) - DATAGRAM_OVERHEAD) // size - 1
        waiting = iter(some)
        while part := list(islice(waiting, most)):
            head = TrunkHead(TrunkKind.ANNOUNCE, is_ipv6, ingress, 1 + len(part))
            datagrams.append(trunk.seal(head, _body(boot, part, is_ipv6=is_ipv6)))
    return datagrams


def read_hello_untrusted(datagram: bytes | memoryview) -> bytes:
    """The boot number in a datagram that `Trunk.open_untrusted` called a hello; or DecodeError."""
    if len(datagram) != DATAGRAM_OVERHEAD + BOOT_LENGTH:
        raise DecodeError("trunk_hello")
    return bytes(datagram[DATAGRAM_OVERHEAD:])


def read_announcement_untrusted(datagram: bytes | memoryview) -> Announcement:
    """What a datagram says that `Trunk.open_untrusted` called an announcement; or DecodeError."""
    data = bytes(datagram)
    if len(data) < DATAGRAM_OVERHEAD + BOOT_LENGTH:
        raise DecodeError("trunk_announce")
    is_ipv6, ingress = data[2] & IPV6, data[3]
    size = _IPV6_BOOT.size if is_ipv6 else BOOT_LENGTH
    body = data[DATAGRAM_OVERHEAD:]
    if len(body) != int.from_bytes(data[4:6], "big") * size:
        raise DecodeError("trunk_announce")
    boot, rest = body[:BOOT_LENGTH], body[size:]
    if is_ipv6:
        clients = [TransportAddress(port + ip) for port, ip in _IPV6_DESCRIPTOR.iter_unpack(rest)]
    else:
        clients = [TransportAddress(client) for (client,) in _IPV4_DESCRIPTOR.iter_unpack(rest)]
    if _body(boot, clients, is_ipv6=bool(is_ipv6)) != body:  # a length that is not 0, or something where zeros belong
        raise DecodeError("trunk_announce")
    return Announcement(boot, ingress, clients)


def _body(boot: bytes, clients: Sequence[TransportAddress], *, is_ipv6: bool) -> bytes:
    if len(boot) != BOOT_LENGTH:
        raise LocalError(f"a boot number of {len(boot)} bytes")
    if is_ipv6:
        return _IPV6_BOOT.pack(boot) + b"".join(_IPV6_DESCRIPTOR.pack(client[:2], client[2:]) for client in clients)
    return boot + b"".join(_IPV4_DESCRIPTOR.pack(client) for client in clients)
