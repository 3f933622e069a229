"""The `[relay]` section. `[routing]`, which relays and transceivers share, is in protocol.routing."""

from __future__ import annotations

from typing import Literal

import msgspec

from protocol.routing import MAX_INGRESS
from service.addresses import parse_host_port

__all__ = ["MAX_ROWS", "RelayConfig"]

MAX_ROWS = 1 << 30  # flows of both kinds: a row has a number of four bytes
MAX_WORKERS = 256


class RelayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every bound of the relay is here; the counters of what hits a bound are on the admin port."""

    listen: tuple[str, ...] = ("127.0.0.1:3478",)
    """Where clients send to. Keep the order on a restart: a reply names its address by position."""
    trunk: str = "127.0.0.1:3479"
    """Where transceivers send to: the first worker's; each further worker takes the next port. Keep it on a restart, so
    that replies of living calls arrive at once."""
    workers: int = 1
    """Processes that carry packets, each with a trunk port of its own; more than one are pinned, one to a CPU. 0: one for
    each CPU we may use. One is the default because trunk ports are an agreement with transceivers and firewalls."""
    control: str = ""
    """Unix socket where `relay upgrade` asks, for this user and root only. Empty: a name in Linux's abstract namespace made
    from the first listen address."""
    upgrade_seconds: float = 10.0
    """A new generation that is not ready by then is ended, and the old one goes on."""
    admin: str = "127.0.0.1:0"
    """Health and metrics; empty for none."""
    verify: Literal["relay", "transceiver"] = "transceiver"
    """Who judges MESSAGE-INTEGRITY of a first check. `relay`: before anything is stored (costs 5 µs a check)."""
    learn_from_replies: bool = True
    """A reply for a client we do not know makes a flow: after a restart a talking call is back in one frame."""
    max_flows: int = 65536
    """Of each worker. Room is reserved for all of them, memory taken as they come: 109 bytes each, 127 with IPv6."""
    max_probationary: int = 4096
    """Flows that no transceiver has answered yet; beyond it the oldest makes room."""
    max_flows_per_token: int = 16
    """Addresses of one call, answered or not; beyond it the one least spoken to makes room. A call has one or two."""
    probationary_bytes: int = 4096
    """What such a flow may send in all."""
    probationary_seconds: float = 10.0
    stun_per_second: float = 10000.0
    """Route tokens that are opened (9 µs each, 30 µs with `verify = "relay"`); further checks of new flows are dropped."""
    idle_seconds: float = 120.0
    """An established flow is forgotten when its transceiver has sent nothing for so long; what clients send keeps none."""
    batch_size: int = 256
    """Datagrams that one system call takes at most."""
    latency_budget_us: float = 200.0
    """How long the relay may sleep, and a packet wait, when as many come that it pays; 0: never. Linux adds up to 50 µs of
    its own (its timer slack)."""
    receive_buffer: int = 4194304
    send_buffer: int = 4194304
    reuse_port: bool = False
    """Several relay processes on one port (SO_REUSEPORT)."""
    stun_server: str = ""
    """HOST:PORT that `relay doctor` asks for our public address; empty for none."""

    def __post_init__(self) -> None:
        if not self.listen:
            raise ValueError("listen: at least one address is needed")
        if len(self.listen) > MAX_INGRESS + 1:
            raise ValueError(f"listen: at most {MAX_INGRESS + 1} addresses")
        for key, addresses in (("listen", self.listen), ("trunk", (self.trunk,))):
            for address in addresses:
                try:
                    parse_host_port(address)
                except ValueError as error:
                    raise ValueError(f"{key}: {error}") from None
        if self.admin:
            try:
                parse_host_port(self.admin)
            except ValueError as error:
                raise ValueError(f"admin: {error}") from None
        for key in (
            "max_flows",
            "max_probationary",
            "max_flows_per_token",
            "probationary_bytes",
            "receive_buffer",
            "send_buffer",
        ):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}: must be at least 1")
        if self.max_flows + self.max_probationary > MAX_ROWS:
            raise ValueError(f"max_flows: with max_probationary at most {MAX_ROWS}")
        if not 1 <= self.batch_size <= 1024:
            raise ValueError("batch_size: must be 1-1024")
        if not 0 <= self.latency_budget_us <= 20000:
            raise ValueError("latency_budget_us: must be 0-20000")
        if not 0 <= self.workers <= MAX_WORKERS:
            raise ValueError(f"workers: must be 0-{MAX_WORKERS}")
        for key in ("probationary_seconds", "stun_per_second", "idle_seconds", "upgrade_seconds"):
            if not getattr(self, key) > 0:
                raise ValueError(f"{key}: must be more than 0")
