"""Everything that a relay reads of the configuration, and what of it a running relay can change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from protocol.routing import KeyRing, RoutingConfig, Trunk
from relay.config import RelayConfig
from relay.sockets import usable_cpus
from service.addresses import check_ports, parse_host_port
from service.config import ConfigError, load
from service.logs import LogConfig

__all__ = ["SECTIONS", "Settings", "check_routing", "kept", "load_settings"]

SECTIONS: dict[str, type[msgspec.Struct]] = {"relay": RelayConfig, "routing": RoutingConfig, "log": LogConfig}

# What belongs to the process that stays: its sockets and its admin port.
_KEPT = ("listen", "trunk", "workers", "admin", "control", "reuse_port", "receive_buffer", "send_buffer")


class Settings(msgspec.Struct, frozen=True):
    """One valid configuration."""

    relay: RelayConfig
    routing: RoutingConfig
    log: LogConfig


def load_settings(file: Path | None, environ: Mapping[str, str]) -> Settings:
    """From the file and the environment, not yet judged by `check_routing`. Raises ConfigError."""
    config = load(SECTIONS, file, environ)
    return Settings(config[RelayConfig], config[RoutingConfig], config[LogConfig])


def check_routing(settings: Settings) -> None:
    """Raises ConfigError unless a relay can run with these keys and addresses."""
    try:
        prefix = KeyRing.parse(settings.routing).prefix
        Trunk.parse(settings.routing)
        if (":" in parse_host_port(settings.relay.trunk)[0]) != (prefix.version == 6):
            raise ValueError(f"relay.trunk: must be an IPv{prefix.version} address, as routing.prefix is one")
    except ValueError as error:
        key, _, message = str(error).partition(": ")
        raise ConfigError(key, message) from None
    try:
        check_ports(settings.relay.trunk, settings.relay.workers or len(usable_cpus()))
    except ValueError as error:
        raise ConfigError("relay.trunk", str(error)) from None


def kept(config: RelayConfig) -> dict[str, object]:
    """The values that only a restart can change, in the types that survive MessagePack."""
    values = {key: getattr(config, key) for key in _KEPT}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
