"""`python -m relay run`, `python -m relay doctor`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import msgspec
import trio

from protocol.routing import KeyRing, RoutingConfig, Trunk
from relay.config import RelayConfig
from relay.service import run
from service.addresses import parse_host_port
from service.config import ConfigError, exit_for, load
from service.listening import run_service
from service.logs import LogConfig, configure

SECTIONS: dict[str, type[msgspec.Struct]] = {"relay": RelayConfig, "routing": RoutingConfig, "log": LogConfig}


def main() -> int:
    arguments = _parser().parse_args()
    try:
        config = load(SECTIONS, arguments.config, os.environ)
        if arguments.command == "run":
            _check_routing(config[RelayConfig], config[RoutingConfig])
    except ConfigError as error:
        exit_for(error)
    configure(config[LogConfig], "relay")
    if arguments.command == "doctor":
        from rich.console import Console  # not at the top: `run` must start fast, callers may be waiting for it

        from relay.doctor import examine, report

        relay = config[RelayConfig]
        if arguments.stun_server:
            relay = msgspec.structs.replace(relay, stun_server=arguments.stun_server)
        return report(trio.run(examine, relay, config[RoutingConfig]), Console())
    return run_service("relay", run, config[RelayConfig], config[RoutingConfig])


def _check_routing(relay: RelayConfig, routing: RoutingConfig) -> None:
    try:
        prefix = KeyRing.parse(routing).prefix
        Trunk.parse(routing)
        if (":" in parse_host_port(relay.trunk)[0]) != (prefix.version == 6):
            raise ValueError(f"relay.trunk: must be an IPv{prefix.version} address, as routing.prefix is one")
    except ValueError as error:
        key, _, message = str(error).partition(": ")
        raise ConfigError(key, message) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="relay",
        description="Antiphon's relay: one public UDP port in front of all transceivers.",
        epilog=_keys(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{run,doctor}")
    for name, text in (
        ("run", "serve until SIGTERM or SIGINT; prints one `ready {...}` line with the bound addresses"),
        ("doctor", "check configuration, ports, socket buffers and public address; exits with 1 if something fails"),
    ):
        command = commands.add_parser(
            name, help=text, description=text, epilog=_keys(), formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_argument("--config", type=Path, metavar="FILE", help="TOML file (default: $ANTIPHON_CONFIG)")
        if name == "doctor":
            command.add_argument("--stun-server", metavar="HOST:PORT", help="who is asked for our public address")
    return parser


def _keys() -> str:
    """The keys of the configuration with their defaults, made from the Structs so that it is never stale."""
    lines = ["configuration: keys of the TOML file, or the environment variable ANTIPHON_<SECTION>_<KEY>"]
    for section, kind in SECTIONS.items():
        lines.append(f"\n  [{section}]")
        lines += [
            f"  {field.encode_name} = {msgspec.json.encode(field.default).decode()}"
            for field in msgspec.structs.fields(kind)
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
