"""`just up`: relay, transceiver and agent as processes of their own, wired to each other, until Ctrl-C.

1. Agent and relay start and say which addresses they bound. 2. The transceiver starts with those. 3. One line on standard
output: `ready http://HOST:PORT/`. 4. A process that dies is started again. 5. SIGINT or SIGTERM ends all: transceiver first, so
that callers hear why.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import NoReturn, TypeVar

import trio

from service.addresses import own_addresses
from service.config import EXIT_CONFIG, Config, ConfigError, exit_for, load, overriding
from service.logs import LogConfig, configure
from service.ready import stop_signals
from stack.config import StackConfig
from stack.plan import Plan, has_voice
from stack.processes import Child, StartFailed

__all__ = ["main"]

EXIT_FAILED = 1
INSIDE = "internal:"  # agents of this prefix live in the transceiver, which knows which there are

Failure = TypeVar("Failure", bound=Exception)


def main() -> NoReturn:
    options = _parser().parse_args()
    if options.config is not None:
        options.config = options.config.resolve()  # the processes run elsewhere
    environ = dict(os.environ)
    given = {key: getattr(options, key) for key in StackConfig.__struct_fields__}
    environ |= overriding("stack", {key: value for key, value in given.items() if value})
    if options.api_keys is not None:
        environ |= overriding("transceiver", {"api_keys": options.api_keys.resolve()})
    if options.open_access:
        environ |= overriding("transceiver", {"open_access": True})
    try:
        config = load({"stack": StackConfig, "log": LogConfig}, options.config, environ)
    except ConfigError as error:
        exit_for(error)
    configure(config[LogConfig], "stack")
    sys.exit(trio.run(_run, config, options.config, environ, strict_exception_groups=True))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="just up", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument(
        "--agent",
        metavar="NAME",
        help="voice (default, if its extra is installed), realtime (else), upstream, parrot, echo, meter, module:function "
        "of your own; internal:echo, internal:meter: inside the transceiver",
    )
    parser.add_argument("--host", help="address of the page; 127.0.0.1 unless you open it to the network")
    parser.add_argument(
        "--api-keys", type=Path, metavar="FILE", help="who calls needs a key of this file (see new-key)"
    )
    parser.add_argument("--open-access", action="store_true", help="anybody who reaches the page may call")
    parser.add_argument("--port", help="TCP port of the page (8080; 0 for any free one)")
    parser.add_argument("--udp-port", help="the relay's public UDP port (3478; 0 for any free one)")
    parser.add_argument(
        "--public-address", metavar="IP[,IP]", help="addresses offered to callers instead of all of this machine's"
    )
    parser.add_argument(
        "--workers", metavar="N", help="processes of the relay, and of the transceiver (1; 0: one for each CPU)"
    )
    parser.add_argument(
        "--direct", action="store_const", const="true", help="no relay: callers reach the transceiver itself"
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="a TOML file; ANTIPHON_<SECTION>_<KEY> overrides it"
    )
    return parser


async def _run(config: Config, file: Path | None, environ: dict[str, str]) -> int:
    stack = config[StackConfig]
    plan = Plan(stack, file, environ)
    children: list[Child] = []
    status = 0
    with stop_signals() as signals:
        try:
            async with trio.open_nursery() as watch:
                work = trio.CancelScope()
                watch.start_soon(_end_on_signal, signals, work)
                try:
                    with work:
                        async with trio.open_nursery() as nursery:
                            await _start(stack, plan, children, nursery)
                finally:
                    with trio.CancelScope(shield=True):
                        for child in reversed(children):
                            await child.stop()
                watch.cancel_scope.cancel()
        except* ConfigError as wrong:
            print(f"config: {_first(wrong)}", file=sys.stderr)
            status = EXIT_CONFIG
        except* StartFailed as failed:
            first = _first(failed)
            status = EXIT_CONFIG if first.status == EXIT_CONFIG else EXIT_FAILED
            if status == EXIT_FAILED:
                print(f"just up: {first}; its reason is above", file=sys.stderr)
    return status


def _first(group: BaseExceptionGroup[Failure]) -> Failure:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


async def _end_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    """The first signal ends the stack; more of them change nothing, for it ends in a second or two."""
    async for _ in signals:
        scope.cancel()


async def _start(stack: StackConfig, plan: Plan, children: list[Child], nursery: trio.Nursery) -> None:
    plan.check_access()

    async def start(child: Child) -> dict[str, object]:
        children.append(child)
        bound: dict[str, object] = await nursery.start(child.supervise)
        return bound

    found: dict[str, dict[str, object]] = {}

    async def start_as(name: str, child: Child) -> None:
        found[name] = await start(child)

    inside = stack.agent if stack.agent.startswith(INSIDE) else ""
    async with trio.open_nursery() as both:
        if not inside:
            both.start_soon(start_as, "agent", Child("agent", ["agent"], plan.agent(), plan.rebind_agent))
        if not stack.direct:
            both.start_soon(start_as, "relay", Child("relay", ["relay", "run"], plan.relay(), plan.rebind_relay))
    listen = found["relay"]["listen"] if "relay" in found else []
    assert isinstance(listen, list)
    environment = plan.transceiver(inside or str(found["agent"]["url"]), listen)
    bound = await start(Child("transceiver", ["transceiver"], environment, plan.rebind_transceiver))
    _say_ready(stack, bound)


def _say_ready(stack: StackConfig, bound: dict[str, object]) -> None:
    https_hint = "browsers give a page the microphone only over HTTPS or on this machine: put an HTTPS proxy in front"
    http = bound["http"]
    assert isinstance(http, list)
    url = str(http[0]).rstrip("/") + "/"
    host = ipaddress.ip_address(stack.host)
    if not host.is_loopback:
        print(f"just up: the page is open to the network; {https_hint}", file=sys.stderr)
    if host.is_unspecified:
        reachable = next((text for text in own_addresses() if (":" in text) == (host.version == 6)), "127.0.0.1")
        port = url.rstrip("/").rpartition(":")[2]
        url = f"http://{f'[{reachable}]' if ':' in reachable else reachable}:{port}/"
    if stack.agent == "auto" and not has_voice():
        print(
            "just up: a parrot answers; `./just up --agent voice` brings an offline voice to talk to", file=sys.stderr
        )
    with suppress(BrokenPipeError):
        print(f"ready {url}", flush=True)


if __name__ == "__main__":
    main()
