"""Transport addresses as bytes, and paths.

A transport address is `port (2 bytes, network order) || IP address (4 or 16 bytes)`: hashable, comparable, ready for
STUN's XOR-MAPPED-ADDRESS and for the trunk. IPv4-mapped IPv6 addresses are always folded to IPv4.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple, NewType

from protocol.errors import DecodeError

__all__ = ["Path", "TransportAddress", "format_address", "pack_address", "unpack_address"]

TransportAddress = NewType("TransportAddress", bytes)

_MAPPED_PREFIX = b"\0" * 10 + b"\xff\xff"


class Path(NamedTuple):
    """Where a datagram came from and must be answered through: a candidate pair seen from the server.

    `local` says through which base: empty for our own socket, or the trunk address of a relay worker and its ingress
    index. The protocol cores never look into it. `remote` is the peer's transport address.
    """

    local: bytes
    remote: TransportAddress


def pack_address(host: str, port: int) -> TransportAddress:
    """`("192.0.2.1", 5000)` → 6 bytes; IPv6 → 18 bytes (a scope id is dropped). Raises ValueError."""
    packed = ipaddress.ip_address(host.partition("%")[0]).packed
    if not 0 <= port <= 0xFFFF:
        raise ValueError(f"{port} is not a port")
    if packed.startswith(_MAPPED_PREFIX) and len(packed) == 16:
        packed = packed[12:]
    return TransportAddress(port.to_bytes(2, "big") + packed)


def unpack_address(address: bytes) -> tuple[str, int]:
    """6 or 18 bytes → `(host, port)`. Raises DecodeError for any other length."""
    if len(address) not in (6, 18):
        raise DecodeError("address_length")
    return str(ipaddress.ip_address(bytes(address[2:]))), int.from_bytes(address[:2], "big")


def format_address(address: bytes) -> str:
    """For logs: `192.0.2.1:5000`, `[2001:db8::1]:5000`."""
    host, port = unpack_address(address)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
