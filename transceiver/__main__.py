"""`python -m transceiver`: read the configuration, serve, print the ready line, drain on the first SIGTERM or SIGINT, end at
once on the second."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import trio

from protocol.routing import RoutingConfig
from protocol.srtp import library_named
from service.config import Config, ConfigError, exit_for, load
from service.listening import run_service
from service.logs import LogConfig, configure, get_logger
from service.ready import announce, stop_signals
from transceiver.config import TransceiverConfig
from transceiver.server import Bound, Transceiver

log = get_logger()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m transceiver",
        description="The transceiver: terminates WebRTC calls and carries their audio and messages to an agent.",
        epilog="Every key of [transceiver], [routing] and [log] can be set as ANTIPHON_<SECTION>_<KEY>.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file; ANTIPHON_CONFIG names one as well")
    options = parser.parse_args(arguments)
    try:
        config = load(
            {"transceiver": TransceiverConfig, "routing": RoutingConfig, "log": LogConfig}, options.config, os.environ
        )
        configure(config[LogConfig], "transceiver")
        return run_service("transceiver", _serve, config)
    except ConfigError as error:
        exit_for(error)


async def _serve(config: Config) -> None:
    transceiver = Transceiver(config[TransceiverConfig], config[RoutingConfig])
    srtp = library_named(config[TransceiverConfig].srtp).name
    with stop_signals() as signals:
        async with trio.open_nursery() as nursery:
            bound: Bound = await nursery.start(_run, transceiver, nursery)
            announce(listen=bound.listen, http=bound.http, admin=bound.admin)
            log.info("transceiver serves", listen=bound.listen, http=bound.http, admin=bound.admin, srtp=srtp)
            nursery.start_soon(_end_on_signals, signals, transceiver)


async def _run(
    transceiver: Transceiver, nursery: trio.Nursery, *, task_status: trio.TaskStatus[Bound] = trio.TASK_STATUS_IGNORED
) -> None:
    await transceiver.run(task_status=task_status)
    nursery.cancel_scope.cancel()


async def _end_on_signals(signals: AsyncIterator[int], transceiver: Transceiver) -> None:
    draining = False
    async for number in signals:
        log.info("told to end", signal=number, at_once=draining)
        if draining:
            transceiver.shut_down()
        else:
            draining = True
            transceiver.drain()


if __name__ == "__main__":
    sys.exit(main())
