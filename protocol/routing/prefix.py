"""Where transceivers may be: `configured prefix | host number` is the only way from a token to an address.

A token carries a number, not an address, so no forged or leaked token can make a relay send outside the prefix. A
prefix that overlaps a range with a special meaning is refused when the configuration is loaded: open relays have
been built again and again out of filters that forgot one of them (0.0.0.0, ::1, IPv4-mapped addresses, NAT64).
"""

from __future__ import annotations

import ipaddress

from protocol.address import TransportAddress
from protocol.errors import DecodeError

__all__ = ["HOST_NUMBER_BITS", "Prefix"]

# Specification constants

HOST_NUMBER_BITS = 32

# Implementation constants

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Never a place for a transceiver (IANA special-purpose registries; RFC 6890, 4291, 6052, 8215, 3056, 4380).
_REFUSED: tuple[_Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "169.254.0.0/16",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "::/96",
        "::ffff:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2001::/32",
        "2002::/16",
        "fe80::/10",
        "ff00::/8",
    )
)
# Good only for who writes precisely that: a prefix may lie inside one of them, but not merely contain it.
_EXPLICIT: tuple[_Network, ...] = tuple(ipaddress.ip_network(text) for text in ("127.0.0.0/8", "::1/128", "fc00::/7"))


class Prefix:
    """One IPv4 or IPv6 network. Raises ValueError with a sentence for the operator."""

    __slots__ = ("_base", "_length", "_network", "_size", "_width")

    def __init__(self, text: str) -> None:
        network = ipaddress.ip_network(text)
        if not any(_inside(network, allowed) for allowed in _EXPLICIT):
            for special in (*_REFUSED, *_EXPLICIT):
                if network.version == special.version and network.overlaps(special):
                    raise ValueError(f"{text} overlaps the special range {special}")
        self._network = network
        self._base = int(network.network_address)
        self._width = network.max_prefixlen // 8
        self._size = network.num_addresses
        self._length = self._width + 2

    def __str__(self) -> str:
        return str(self._network)

    @property
    def version(self) -> int:
        """4 or 6: the trunk's sockets must be of the same family."""
        return self._network.version

    def contains(self, address: TransportAddress) -> bool:
        """Whether a transport address lies inside, with a port that can be sent to."""
        return (
            len(address) == self._length
            and 0 <= int.from_bytes(address[2:], "big") - self._base < self._size
            and address[:2] != b"\0\0"
        )

    def host_number(self, address: TransportAddress) -> int:
        """The inverse of `address`. Raises ValueError for an address that a token cannot name."""
        if not self.contains(address):
            raise ValueError(f"not inside {self}, where transceivers must be")
        number = int.from_bytes(address[2:], "big") - self._base
        if not self._names_a_host(number):
            raise ValueError(f"host number {number} of {self} cannot be the address of a transceiver")
        return number

    def address(self, host_number: int, port: int) -> TransportAddress:
        """`prefix | host number` and the port. Raises DecodeError when that is no address of a host."""
        if not self._names_a_host(host_number) or not 0 < port < 65536:
            raise DecodeError("token_address")
        return TransportAddress(port.to_bytes(2, "big") + (self._base + host_number).to_bytes(self._width, "big"))

    def _names_a_host(self, number: int) -> bool:
        if not 0 <= number < min(self._size, 1 << HOST_NUMBER_BITS):
            return False
        if self._size <= 2:
            return True
        # The network itself (IPv6: the routers' anycast address) and the IPv4 broadcast address are no hosts.
        return number != 0 and not (self._width == 4 and number == self._size - 1)


def _inside(network: _Network, other: _Network) -> bool:
    if isinstance(network, ipaddress.IPv4Network):
        return isinstance(other, ipaddress.IPv4Network) and network.subnet_of(other)
    return isinstance(other, ipaddress.IPv6Network) and network.subnet_of(other)
