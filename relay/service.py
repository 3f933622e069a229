"""One relay worker: sockets, loops and the tree of its tasks.

    serve ├ front × listen address   clients → core → trunk
          ├ back                     trunk → core → clients
          ├ sweeper                  expiry; what the kernel refused goes into the log, at most once in ten seconds
          └ admin                    health and metrics

A loop receives, lets the core decide, and sends, without an await in between; after BUDGET batches it yields to the
other direction.
"""

from __future__ import annotations

import importlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import trio

from protocol.address import format_address
from protocol.routing import KeyRing, RoutingConfig, Trunk
from relay.config import RelayConfig
from relay.core import RelayCore
from service.addresses import parse_host_port
from service.listening import naming
from service.logs import get_logger
from service.ready import announce, stop_signals
from udpio import SocketOptions, UdpSocket, open_udp

__all__ = ["Bound", "run", "serve"]

BUDGET = 8
SWEEP_SECONDS = 1.0
LOG_SECONDS = 10.0
CLIENT_SLOT = 2048  # no protocol of WebRTC needs more than 1500; what is longer is dropped
TRUNK_SLOT = 9216  # a jumbo frame: a bundle is never longer than the peer's MTU

log = get_logger()


@dataclass(frozen=True, slots=True)
class Bound:
    """Where the relay really is."""

    listen: tuple[str, ...]
    trunk: str
    admin: str | None
    core: RelayCore


async def run(config: RelayConfig, routing: RoutingConfig) -> None:
    """The process: announce readiness, serve until SIGTERM or SIGINT. Nothing is drained: the calls are not ours."""
    keys, trunk = KeyRing.parse(routing), Trunk.parse(routing)
    with stop_signals() as signals:
        async with trio.open_nursery() as nursery:
            bound: Bound = await nursery.start(serve, config, keys, trunk)
            announce(listen=list(bound.listen), trunk=bound.trunk, admin=bound.admin)
            log.info("relay serves", listen=list(bound.listen), trunk=bound.trunk, admin=bound.admin)
            async for number in signals:
                log.info("relay ends", signal=number)
                break
            nursery.cancel_scope.cancel()


async def serve(
    config: RelayConfig,
    keys: KeyRing,
    trunk: Trunk,
    *,
    wall_time: Callable[[], float] = time.time,
    task_status: trio.TaskStatus[Bound] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled. Raises CannotListen when an address cannot be bound."""
    core = RelayCore(config, keys, trunk, wall_time=wall_time)
    sockets: list[UdpSocket] = []
    try:
        for address in config.listen:
            sockets.append(_open("listen", address, CLIENT_SLOT, config))  # noqa: PERF401 - each is to be closed
        sockets.append(_open("trunk", config.trunk, TRUNK_SLOT, config))
        *fronts, back = sockets
        names = [*(f"listen {format_address(front.address)}" for front in fronts), "trunk"]
        counters = {name: sock.counters for name, sock in zip(names, sockets, strict=True)}
        async with trio.open_nursery() as nursery:
            for ingress, front in enumerate(fronts):
                nursery.start_soon(_front, core, front, ingress, back)
            nursery.start_soon(_back, core, back, fronts)
            nursery.start_soon(_sweep, core, dict(zip(names, sockets, strict=True)))
            admin = None
            if config.admin:
                # A restarted relay has callers waiting: packets flow while a thread does the imports of the admin port.
                module = await trio.to_thread.run_sync(importlib.import_module, "relay.admin")
                [admin] = await nursery.start(module.admin_port, config.admin, core, counters)
            task_status.started(
                Bound(
                    tuple(format_address(front.address) for front in fronts),
                    format_address(back.address),
                    admin,
                    core,
                )
            )
    finally:
        for sock in sockets:
            sock.close()


def _open(name: str, address: str, slot_size: int, config: RelayConfig) -> UdpSocket:
    options = SocketOptions(
        batch_size=config.batch_size,
        slot_size=slot_size,
        receive_buffer=config.receive_buffer,
        send_buffer=config.send_buffer,
        reuse_port=config.reuse_port and name == "listen",
    )
    with naming(address):
        return open_udp(*parse_host_port(address), options)


async def _front(core: RelayCore, front: UdpSocket, ingress: int, back: UdpSocket) -> None:
    now = trio.current_time
    while True:
        await front.wait_readable()
        for _ in range(BUDGET):
            batch = front.receive_batch()
            if not batch:
                break
            if datagrams := core.receive_clients_untrusted(batch, ingress, now()):
                back.send_batch(datagrams)


async def _back(core: RelayCore, back: UdpSocket, fronts: list[UdpSocket]) -> None:
    now = trio.current_time
    while True:
        await back.wait_readable()
        for _ in range(BUDGET):
            batch = back.receive_batch()
            if not batch:
                break
            for front, datagrams in zip(fronts, core.receive_trunk_untrusted(batch, now()), strict=True):
                if datagrams:
                    front.send_batch(datagrams)


async def _sweep(core: RelayCore, sockets: dict[str, UdpSocket]) -> None:
    logged: Counter[str] = Counter()
    log_at = trio.current_time() + LOG_SECONDS
    while True:
        await trio.sleep(SWEEP_SECONDS)
        now = trio.current_time()
        core.handle_timeout(now)
        while core.next_timeout() <= now:  # a large table is looked through in slices
            await trio.lowlevel.checkpoint()
            core.handle_timeout(now)
        if now >= log_at:
            log_at = now + LOG_SECONDS
            refused = Counter(
                {
                    f"{name} {word}": value
                    for name, sock in sockets.items()
                    for counted in (sock.counters.send_errors, sock.counters.receive_errors)
                    for word, value in counted.items()
                }
            )
            if news := refused - logged:
                log.warning("the kernel refused datagrams", refused=dict(news))
            logged = refused
