"""`python -m transceiver`: read the configuration, serve, print the ready line, drain on the first SIGTERM or SIGINT, end at
once on the second."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import trio

from protocol.routing import RoutingConfig
from protocol.srtp import library_named
from service.config import Config, ConfigError, exit_for, load, overriding
from service.listening import EXIT_FAILED, run_service
from service.logs import LogConfig, configure, get_logger
from service.ready import announce, stop_signals
from transceiver.config import TransceiverConfig
from transceiver.server import Bound, Transceiver
from transceiver.signalling import Access, new_key, new_secret_key
from transceiver.workers import END, Supervisor, WorkerFailed, WorkerPlace, check_own_ports, follow_orders, usable_cpus

log = get_logger()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m transceiver",
        description="The transceiver: terminates WebRTC calls and carries their audio and messages to an agent.",
        epilog="Every key of [transceiver], [routing] and [log] can be set as ANTIPHON_<SECTION>_<KEY>.",
    )
    commands = parser.add_subparsers(title="instead of serving", metavar="")
    new_key = commands.add_parser(
        "new-key", help="make an API key: the key on standard error, its line for the file on output"
    )
    new_key.add_argument("name", help="what logs and agents call it")
    new_key.add_argument("--calls", type=int, metavar="N", help="it may have so many calls at once")
    new_key.add_argument("--per-minute", type=int, metavar="N", help="it may place so many calls a minute")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file; ANTIPHON_CONFIG names one as well")
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes, one a core; 0: one for each CPU that may be used (default: 1)",
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)  # from the parent to its workers
    options = parser.parse_args(arguments)
    if "name" in options:
        return _make_key(options, new_key)
    environ = dict(os.environ)
    if options.workers is not None:
        environ |= overriding("transceiver", {"workers": options.workers})
    try:
        config = load(
            {"transceiver": TransceiverConfig, "routing": RoutingConfig, "log": LogConfig}, options.config, environ
        )
        if options.worker is not None:
            place = msgspec.json.decode(options.worker, type=WorkerPlace)
            configure(config[LogConfig], f"transceiver-{place.index}")
            return run_service(f"transceiver, worker {place.index}", _serve, config, place)
        configure(config[LogConfig], "transceiver")
        count = config[TransceiverConfig].workers or len(usable_cpus()) or 1
        if count == 1:
            return run_service("transceiver", _serve, config, None)
        check_own_ports(config[TransceiverConfig], count)
        Access.configured(config[TransceiverConfig]).log_what_holds(config[TransceiverConfig])
        command = [sys.executable, "-m", "transceiver"]
        if options.config is not None:
            command += ["--config", str(options.config)]
        return _serve_by_workers(config[TransceiverConfig], count, command)
    except ConfigError as error:
        exit_for(error)


def _make_key(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    try:
        key, line = new_key(options.name, os.urandom, calls=options.calls, per_minute=options.per_minute)
    except ValueError as error:
        parser.error(str(error))
    print(f"The key, which is shown this once: {key}", file=sys.stderr)
    print(line)
    return 0


def _serve_by_workers(config: TransceiverConfig, count: int, command: list[str]) -> int:
    status = EXIT_FAILED
    try:
        status = run_service("transceiver", _supervise, config, count, command)
    except* WorkerFailed:  # it has said why
        log.error("not all workers came to serve")
    return status


async def _serve(config: Config, place: WorkerPlace | None) -> None:
    transceiver = Transceiver(config[TransceiverConfig], config[RoutingConfig], place=place)
    if place is None:
        transceiver.access.log_what_holds(config[TransceiverConfig])
    srtp = library_named(config[TransceiverConfig].srtp).name
    with stop_signals() as signals:
        async with trio.open_nursery() as nursery:
            bound: Bound = await nursery.start(_run, transceiver, nursery)
            announce(listen=bound.listen, http=bound.http, admin=bound.admin)
            log.info("transceiver serves", listen=bound.listen, http=bound.http, admin=bound.admin, srtp=srtp)
            if place is None:
                nursery.start_soon(_end_on_signals, signals, transceiver)
            else:
                nursery.start_soon(_drain_on_signals, signals, transceiver)
                nursery.start_soon(_follow_orders, transceiver)


async def _supervise(config: TransceiverConfig, count: int, command: list[str]) -> None:
    # Whichever worker made a client secret, each may be asked to open it.
    shared = overriding("transceiver", {"secret_key": config.secret_key or new_secret_key()})
    supervisor = Supervisor(config, count, command, shared)
    with stop_signals() as signals:
        async with trio.open_nursery() as nursery:
            bound = await nursery.start(_run, supervisor, nursery)
            announce(**bound)
            log.info("transceiver serves", **bound)
            nursery.start_soon(_end_on_signals, signals, supervisor)


async def _run(
    service: Transceiver | Supervisor,
    nursery: trio.Nursery,
    *,
    task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
) -> None:
    await service.run(task_status=task_status)
    nursery.cancel_scope.cancel()


async def _end_on_signals(signals: AsyncIterator[int], service: Transceiver | Supervisor) -> None:
    draining = False
    async for number in signals:
        log.info("told to end", signal=number, at_once=draining)
        if draining:
            service.shut_down()
        else:
            draining = True
            service.drain()


async def _drain_on_signals(signals: AsyncIterator[int], transceiver: Transceiver) -> None:
    """One worker alone, however often it is told: when to end at once is the parent's to say."""
    async for _ in signals:
        transceiver.drain()


async def _follow_orders(transceiver: Transceiver) -> None:
    async for order in follow_orders():
        if order == END:
            transceiver.shut_down()
        else:
            transceiver.drain()


if __name__ == "__main__":
    sys.exit(main())
