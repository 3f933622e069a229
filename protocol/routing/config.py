"""The `[routing]` section: what relays and transceivers of one cluster must agree on."""

from __future__ import annotations

import msgspec

__all__ = ["RoutingConfig"]


class RoutingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Secrets are hexadecimal, at least 32 bytes; the first of each list seals and signs, all of them are accepted.

    To rotate a key: append the new one everywhere, then move it to the front everywhere, then (a longest call later)
    remove the old one. No call is lost on the way.
    """

    cluster: int = 1
    """Number of this cluster, 0-65535: tokens of another cluster are not ours."""
    keys: tuple[str, ...] = ()
    """Token keys as `ID:HEX`, ID 0-6: `openssl rand -hex 32` makes the second part."""
    prefix: str = "127.0.0.0/8"
    """All transceivers live in this network; a token cannot name an address outside it."""
    trunk_keys: tuple[str, ...] = ()
    """Keys (HEX) of the tag on every datagram between relay and transceiver."""
    trunk_mtu: int = 1452
    """Largest UDP payload on the trunk; 1452 suits Ethernet under both IPv4 and IPv6. 0: no bundling, a datagram each."""
    token_max_age: float = 5400.0
    """Seconds; must exceed the longest call, because a restarted relay learns calls again from their tokens."""
    token_clock_tolerance: float = 300.0
    """Seconds by which the clocks of two machines may differ."""

    def __repr__(self) -> str:
        """Without the secrets: a configuration ends up in logs and tracebacks."""
        return f"RoutingConfig(cluster={self.cluster}, prefix={self.prefix!r}, {len(self.keys)} keys)"
