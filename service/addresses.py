"""Socket addresses in configuration, and the addresses of this machine."""

from __future__ import annotations

import ipaddress

import ifaddr

__all__ = ["own_addresses", "parse_host_port", "to_host_port"]

MAX_OWN_ADDRESSES = 8


def parse_host_port(text: str) -> tuple[str, int]:
    """`127.0.0.1:3478`, `[::1]:0` → (IP address, port). Raises ValueError with a sentence."""
    host, separator, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        address = None
    bracketed = host.startswith("[") and host.endswith("]")
    if not separator or address is None or (address.version == 6) != bracketed:
        raise ValueError(f"{text!r} is not an address like 127.0.0.1:3478 or [::1]:3478")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} has no port between 0 and 65535")
    return str(address), int(port)


def to_host_port(host: str, port: int) -> str:
    """(IP address, port) → `127.0.0.1:3478`, `[::1]:3478`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def own_addresses() -> list[str]:
    """The unicast IP addresses of this machine's interfaces, loopback last; link-local ones (they need a scope) left out.

    Browsers differ: Firefox never uses a loopback candidate, Chromium does, so a stack on a laptop offers both.
    """
    found: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = []
    for adapter in ifaddr.get_adapters():
        for entry in adapter.ips:
            text = entry.ip if isinstance(entry.ip, str) else entry.ip[0]
            address = ipaddress.ip_address(text.partition("%")[0])
            if not (address.is_link_local or address.is_multicast or address.is_unspecified or address in found):
                found.append(address)
    found.sort(key=lambda address: (address.is_loopback, address.version))
    return [str(address) for address in found[:MAX_OWN_ADDRESSES]]
