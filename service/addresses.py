"""Socket addresses in configuration, and the addresses of this machine."""

from __future__ import annotations

import ipaddress

import ifaddr

__all__ = ["check_ports", "own_addresses", "parse_host_port", "to_host_port"]

# Specification constants
MAX_PORT = 65535

# Implementation constants
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
    if not port.isascii() or not port.isdigit() or int(port) > MAX_PORT:
        raise ValueError(f"{text!r} has no port between 0 and {MAX_PORT}")
    return str(address), int(port)


def check_ports(text: str, workers: int) -> None:
    """Raises ValueError unless each of `workers` can have a port, from that of `text` on; with port 0, any, each can."""
    port = parse_host_port(text)[1]
    if port and port + workers - 1 > MAX_PORT:
        raise ValueError(f"{text!r} leaves {workers} workers too few ports: each takes the next one, up to {MAX_PORT}")


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
