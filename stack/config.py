"""The `[stack]` section: what `just up` itself decides. The processes' own sections are theirs."""

from __future__ import annotations

import ipaddress

import msgspec

__all__ = ["StackConfig"]

MAX_WORKERS = 256  # as relay and transceiver take


class StackConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Defaults suit a laptop: the page on loopback, media on every address of the machine."""

    host: str = "127.0.0.1"
    """Address of the page and of signalling."""
    port: int = 8080
    """Their TCP port; 0 takes any free one. (`transceiver.http`, if set, decides instead of these two.)"""
    udp_port: int = 3478
    """The relay's public UDP port; 0 takes any free one. (`relay.listen`, if set, decides instead.)"""
    public_address: tuple[str, ...] = ()
    """IP addresses offered to callers; empty: every address of this machine, loopback too."""
    agent: str = "auto"
    """`voice`, `realtime`, `upstream`, `parrot`, `echo`, `meter`; `auto`: `voice` if its extra is installed, else `realtime`;
    or `module:function` for an agent of your own; `internal:echo` and `internal:meter`: inside the transceiver, and no process
    of an agent."""
    workers: int = 1
    """Processes of the relay, and as many of the transceiver, each on a CPU of its own; 0: one for each CPU that may be used.
    (`relay.workers` and `transceiver.workers`, if set, decide instead.)"""
    direct: bool = False
    """Without a relay: callers reach the transceiver's own socket."""

    def __post_init__(self) -> None:
        for key in ("port", "udp_port"):
            if not 0 <= getattr(self, key) <= 65535:
                raise ValueError(f"{key}: must be between 0 and 65535")
        if not 0 <= self.workers <= MAX_WORKERS:
            raise ValueError(f"workers: must be 0 to {MAX_WORKERS}")
        for key, texts in {"host": (self.host,), "public_address": self.public_address}.items():
            for text in texts:
                try:
                    ipaddress.ip_address(text)
                except ValueError:
                    raise ValueError(f"{key}: {text!r} is not an IP address") from None
