"""`python -m agent`: serve an agent to transceivers."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NoReturn

import trio
from prometheus_client.core import Metric

from agent.codecs import pcm_codecs
from agent.codecs.opus import find_opus
from agent.config import AgentConfig
from agent.live import Agent
from agent.loading import AgentNotFound, load_agents
from agent.server import AgentServer
from service import config as configuration
from service.admin import serve_admin
from service.listening import run_service
from service.logs import LogConfig, configure, get_logger
from service.ready import announce, stop_signals

EPILOG = """\
Your own agent is an async function that takes a call:

    # my_agent.py
    from agent import Call

    async def agent(call: Call) -> None:
        async for frame in call.frames():
            await call.send_frame(frame.payload)

    python -m agent --agent my_agent:agent

docs/agent.md describes all that a call can do; examples/ has more. Options override the file and the environment
(ANTIPHON_AGENT_AGENT, ANTIPHON_AGENT_ALSO, ANTIPHON_AGENT_LISTEN, ANTIPHON_AGENT_ADMIN, ANTIPHON_AGENT_MAX_CALLS,
ANTIPHON_AGENT_DRAIN_SECONDS).
When it serves, it prints one line on standard output: ready {"agent": …, "listen": …, "url": …, "admin": …}.
SIGTERM or SIGINT: no new calls, those in progress may finish; a second one: at once.
"""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m agent",
        description="Serve an agent to transceivers, over one WebSocket link each.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    defaults = AgentConfig()
    parser.add_argument(
        "--agent",
        metavar="NAME",
        help=f"echo, meter, parrot, realtime, voice, upstream or module:function (default: {defaults.agent})",
    )
    parser.add_argument(
        "--also", metavar="NAME,…", help="further agents, for callers whose session names one as `model`"
    )
    parser.add_argument(
        "--listen", metavar="HOST:PORT", help=f"where transceivers connect; port 0: any (default: {defaults.listen})"
    )
    parser.add_argument(
        "--admin", metavar="HOST:PORT", help=f"health and metrics; port 0: any (default: {defaults.admin})"
    )
    parser.add_argument("--config", metavar="FILE", type=Path, help="TOML file (default: $ANTIPHON_CONFIG, else none)")
    return parser.parse_args()


async def serve(config: AgentConfig, agent: Agent) -> None:
    log = get_logger()
    server = AgentServer(agent, config.agent, also=config.also, max_calls=config.max_calls)

    def metrics() -> Iterator[Metric]:
        yield from server.statistics.metrics()
        yield from getattr(agent, "metrics", tuple)()  # an agent may count, too

    with stop_signals() as signals:
        async with trio.open_nursery() as nursery:
            bound = await nursery.start(server.serve, config.listen)
            [admin] = await nursery.start(
                partial(
                    serve_admin,
                    config.admin,
                    metrics=metrics,
                    ready=lambda: not server.is_draining,
                    status=lambda: {"agent": config.agent, "calls": server.statistics.calls},
                )
            )
            announce(agent=config.agent, listen=bound, url=f"ws://{bound}/", admin=admin)
            log.info("agent serves", agent=config.agent, listen=bound, admin=admin, pcm_codecs=pcm_codecs(find_opus()))

            async def drain() -> None:
                await server.drain(config.drain_seconds)
                nursery.cancel_scope.cancel()

            async for number in signals:
                if server.is_draining:
                    break
                log.info("draining", signal=number, calls=server.statistics.calls)
                nursery.start_soon(drain)
            nursery.cancel_scope.cancel()


def main() -> NoReturn:
    options = arguments()
    given = {key: getattr(options, key) for key in ("agent", "also", "listen", "admin")}
    environ = {**os.environ, **configuration.overriding("agent", given)}
    try:
        config = configuration.load({"agent": AgentConfig, "log": LogConfig}, options.config, environ)
        agent_config = config[AgentConfig]
        agent = load_agents((agent_config.agent, *agent_config.also), agent_config)
    except configuration.ConfigError as error:
        configuration.exit_for(error)
    except AgentNotFound as error:
        configuration.exit_for(configuration.ConfigError("agent.agent", str(error)))
    configure(config[LogConfig], "agent")
    sys.exit(run_service("agent", serve, agent_config, agent))


if __name__ == "__main__":
    main()
