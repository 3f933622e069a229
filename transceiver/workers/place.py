"""What a worker knows of itself and its siblings: its number, how many there are, the addresses that all of them share.

The number of the worker that has a call is in the call's id, so that whoever is asked knows whom to ask:
`rtc_` | number of the worker, 2 hex digits | 22 random hex digits.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from service.addresses import check_ports, parse_host_port, to_host_port
from service.config import ConfigError
from transceiver.config import TransceiverConfig

__all__ = ["WorkerPlace", "check_own_ports", "shift_port", "usable_cpus"]

# Specification constants
CALL_ID = re.compile(r"rtc_([0-9a-f]{2})[0-9a-f]{22}")


class WorkerPlace(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    count: int
    http: tuple[str, ...]
    """What signalling listens on, as bound: the same for all workers."""
    folder: str
    """Of the sockets by which workers and parent reach each other; only we may enter it."""

    def socket_of(self, index: int) -> str:
        return str(Path(self.folder) / f"worker-{index}")

    @property
    def loads(self) -> Path:
        return Path(self.folder) / "loads"

    def owner_of(self, call_id: str) -> int | None:
        """The worker that has, or had, a call; None if no worker of ours can have given out this id."""
        found = CALL_ID.fullmatch(call_id)
        owner = int(found[1], 16) if found is not None else self.count
        return owner if owner < self.count else None

    def own(self, config: TransceiverConfig) -> TransceiverConfig:
        """The configuration of this worker: its own UDP port, and a name of its own, if they were given."""
        index = self.index
        return msgspec.structs.replace(
            config,
            listen=shift_port(config.listen, index),
            address=shift_port(config.address, index) if config.address is not None else None,
            # With `direct` these are addresses of our socket; else of relays, which are the same for all.
            advertise=tuple(shift_port(text, index) for text in config.advertise)
            if config.direct
            else config.advertise,
            http=self.http,
            identity=f"{config.identity}-{index}" if config.identity else "",
        )


def check_own_ports(config: TransceiverConfig, count: int) -> None:
    """Raises ConfigError unless each of `count` workers can have the addresses that `WorkerPlace.own` gives it."""
    own = [("listen", config.listen)]
    own += [("address", config.address)] if config.address is not None else []
    own += [("advertise", text) for text in config.advertise if config.direct]
    for key, text in own:
        try:
            check_ports(text, count)
        except ValueError as error:
            raise ConfigError(f"transceiver.{key}", str(error)) from None


def shift_port(address: str, by: int) -> str:
    """The address `by` ports further on; port 0, any, stays so."""
    host, port = parse_host_port(address)
    return to_host_port(host, port + by) if port else address


def usable_cpus() -> list[int]:
    """Those that this process may run on; empty where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
