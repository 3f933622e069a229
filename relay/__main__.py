"""`python -m relay run`, `python -m relay upgrade`, `python -m relay doctor`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import msgspec
import trio

from protocol.address import format_address, pack_address
from relay.control import ask_upgrade, control_name, running_relays
from relay.generation import HostProcess, fork_host
from relay.settings import SECTIONS, Settings, check_routing, load_settings
from relay.sockets import open_sockets
from relay.supervisor import NotReady, Supervisor
from service.addresses import parse_host_port
from service.config import ConfigError, exit_for
from service.listening import run_service
from service.logs import configure

EXIT_FAILED = 1
PATIENCE = 10.0  # seconds more than the relay's own


def main() -> int:
    arguments = _parser().parse_args()
    file: Path | None = arguments.config
    try:
        settings = load_settings(file, os.environ)
        if arguments.command == "run":
            check_routing(settings)
    except ConfigError as error:
        exit_for(error)
    configure(settings.log, "relay")
    if arguments.command == "doctor":
        from rich.console import Console  # not at the top: `run` must start fast, callers may be waiting for it

        from relay.doctor import examine, report

        relay = settings.relay
        if arguments.stun_server:
            relay = msgspec.structs.replace(relay, stun_server=arguments.stun_server)
        return report(trio.run(examine, relay, settings.routing), Console())
    if arguments.command == "upgrade":
        return _upgrade(settings)
    try:
        return run_service("relay", _run, settings, file, fork_host(file))
    except* NotReady as group:
        print(f"relay: {group.exceptions[0]}", file=sys.stderr)
    return EXIT_FAILED


async def _run(settings: Settings, file: Path | None, first: HostProcess) -> None:
    await Supervisor(settings, file, open_sockets(settings.relay)).run(first)


def _upgrade(settings: Settings) -> int:
    """Ask the relay that runs with this configuration; its steps on standard output, what went wrong on standard error."""
    listen = format_address(pack_address(*parse_host_port(settings.relay.listen[0])))  # as the relay itself writes it
    name = control_name(settings.relay, listen)
    shown = name.replace("\0", "@")
    if not name or (not settings.relay.control and settings.relay.listen[0].endswith(":0")):
        print("relay: where it is asked is not known: set relay.control, or send it SIGUSR2", file=sys.stderr)
        return EXIT_FAILED
    try:
        for answer in ask_upgrade(name, settings.relay.upgrade_seconds + PATIENCE):
            if answer.reason:
                print(f"relay: not upgraded, the old generation goes on: {answer.reason}", file=sys.stderr)
                return EXIT_FAILED
            print(answer.step or "upgraded", flush=True)
    except OSError as error:
        hint = "" if settings.relay.control else f" ({_whom_to_ask()})"
        print(f"relay: nobody answers at {shown}: {error.strerror or error}{hint}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def _whom_to_ask() -> str:
    found = ", ".join(running_relays())
    here = f"here run {found}" if found else "none is seen here; its log has it"
    return (
        "a relay is asked by the first relay.listen that it was started with: if the file names another now, "
        f"put the old one first in ANTIPHON_RELAY_LISTEN; {here}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="relay",
        description="Antiphon's relay: one public UDP port in front of all transceivers.",
        epilog=_keys(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{run,upgrade,doctor}")
    for name, text in (
        ("run", "serve until SIGTERM or SIGINT; prints one `ready {...}` line with the bound addresses"),
        (
            "upgrade",
            "have the running relay read its configuration anew and go on in new processes with the code that is installed "
            "now, without losing a packet; exits with 1 if it goes on as before, and says why",
        ),
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
