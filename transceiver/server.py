"""A transceiver: its tasks in one nursery, from the first socket to the last goodbye.

    root ├ engine      the UDP socket and all calls
         ├ agents      one link per agent, made again when it breaks
         ├ signalling  HTTP: offers, hang-ups, the page
         ├ access      the file of API keys, read again when it changes
         ├ alarm       forged trunk datagrams in numbers go into the log
         └ admin       health and metrics

`drain` and `shut_down` are the two ways to end; `run` returns when the last call has ended.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import trio
from prometheus_client.core import Metric
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount

from protocol.address import TransportAddress, format_address, pack_address, unpack_address
from protocol.dtls import Identity
from protocol.ice import Candidate, candidate_priority
from protocol.routing import KeyRing, RoutingConfig, Trunk
from protocol.srtp import library_named
from service.addresses import own_addresses, parse_host_port
from service.admin import create_admin_app
from service.alarms import watch_drops
from service.config import ConfigError
from service.http import serve_http
from service.listening import naming
from transceiver.backends.pool import AgentPool
from transceiver.config import TransceiverConfig
from transceiver.engine import Engine
from transceiver.metrics import collect
from transceiver.registry import Registry
from transceiver.signalling import (
    WEBSOCKETS,
    Access,
    ConnectionDoor,
    ConnectionLimits,
    Guard,
    Origins,
    create_app,
    serve_signalling,
)
from transceiver.sockets import SocketSessions
from transceiver.workers import Forwarder, Loads, WorkerPlace
from udpio import KernelSocket, SocketOptions, UdpSocket, open_udp

__all__ = ["Bound", "Transceiver"]

# Implementation constants
OWN_PAGE = Path(__file__).parents[1] / "web"
FIRST_LINK_SECONDS = 2.0  # an agent that is there takes milliseconds; we serve without one, too
GOODBYE_SECONDS = 0.2  # for the links to the agents to take our last words
ALARMING = {"trunk_forged": "routing.trunk_keys here and at a relay differ"}
"""By the reasons of `Engine.drops`."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The addresses that a transceiver really has."""

    listen: str
    http: list[str]
    admin: str


class Transceiver:
    """Raises ConfigError for what is wrong only together with another section, CannotListen for a taken address."""

    def __init__(
        self,
        config: TransceiverConfig,
        routing: RoutingConfig,
        *,
        udp: UdpSocket | None = None,
        strict: bool = False,
        wall_time: Callable[[], float] = time.time,
        place: WorkerPlace | None = None,
    ) -> None:
        if place is not None:
            config = place.own(config)
        self._config = config
        self._place = place
        self.access = Access.configured(config, wall_time)
        self._loads = Loads(place.loads, place.count) if place is not None else None
        self._udp = udp if udp is not None else _open(config)
        try:
            address = _own_address(config, self._udp.address)
            keys, trunk = _routing(config, routing, address)
            library = library_named(config.srtp)
            self.engine = Engine(
                self._udp,
                trunk,
                direct=config.direct,
                mtu=routing.trunk_mtu,
                strict=strict,
                latency_budget=config.latency_budget_us / 1e6,
                srtp=library,
            )
            self.agents = AgentPool(
                config.agents, config.identity or format_address(address), self.engine, config.agent_gather
            )
            self.engine.on_turn_end = self.agents.flush
            self.registry = Registry(
                config,
                engine=self.engine,
                backend=self.agents,
                keys=keys,
                identity=Identity.generate(datetime.fromtimestamp(wall_time(), UTC)),
                address=address,
                candidates=_candidates(config, self._udp.address),
                wall_time=wall_time,
                worker=place.index if place is not None else None,
                on_count=self._tell_load,
                usage=self.access.usage,
            )
            self.sockets = SocketSessions(self.registry, self.agents, config.timeouts, self.access.usage, wall_time)
            self._door = ConnectionDoor(ConnectionLimits(config.max_connections, config.max_connections_per_address))
            self._page = _page(config.web)
        except BaseException:
            self._udp.close()
            raise

    async def run(self, *, task_status: trio.TaskStatus[Bound] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until drained and empty, or shut down; `task_status` gets the bound addresses."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.engine.run)
                nursery.start_soon(self.agents.run)
                nursery.start_soon(self.access.run)
                nursery.start_soon(watch_drops, self.engine.drops, ALARMING)
                http, admin = await self._serve_http(nursery)
                with trio.move_on_after(FIRST_LINK_SECONDS):
                    await self.agents.wait_connected()
                task_status.started(Bound(format_address(self._udp.address), http, admin))
                await self.registry.wait_empty()
                with trio.move_on_after(GOODBYE_SECONDS):
                    await self.agents.wait_written()
                with trio.move_on_after(GOODBYE_SECONDS):
                    await self.agents.close()
                nursery.cancel_scope.cancel()
        finally:
            self._udp.close()

    async def _serve_http(self, nursery: trio.Nursery) -> tuple[list[str], str]:
        """Signalling and the admin port; for one worker of several, its share of them. Their URLs, "" for no admin port."""
        config, place = self._config, self._place
        origins = Origins.configured(config)
        make_app = partial(
            create_app,
            self.registry,
            request_seconds=config.timeouts.request,
            access=self.access,
            origins=origins,
            sockets=self.sockets,
        )
        admin = create_admin_app(
            metrics=self._metrics,
            ready=lambda: not self.registry.draining,
            status=lambda: {"calls": self.registry.lines},
        )
        if place is None or self._loads is None:
            app = Guard(make_app(web=self._page), origins)
            [admin_url] = await nursery.start(serve_http, admin, [config.admin])
            return await nursery.start(serve_signalling, app, config.http, self._door), admin_url
        # What siblings and the parent ask comes by a socket of ours alone, and is never passed on.
        private = Starlette(routes=[Mount("/admin", admin), Mount("/", make_app())])
        within = partial(serve_http, private, [f"unix:{place.socket_of(place.index)}"], websockets=WEBSOCKETS)
        await nursery.start(within)
        forwarding = Middleware(
            Forwarder,
            place=place,
            loads=self._loads,
            request_seconds=config.timeouts.request,
            access=self.access,
        )
        app = Guard(make_app(web=self._page, inner=[forwarding]), origins)
        http = await nursery.start(partial(serve_signalling, app, config.http, self._door, shared=True))
        self._tell_load(0)
        return http, ""

    def _tell_load(self, calls: int) -> None:
        """So that siblings know whether to hand calls on to us."""
        if self._place is not None and self._loads is not None:
            self._loads.tell(self._place.index, calls)

    def drain(self) -> None:
        """Take no new calls, let those that are live finish, then end."""
        if self._place is not None and self._loads is not None:
            self._loads.leave(self._place.index)
        self.agents.drain()
        self.registry.drain()
        self.sockets.drain()

    def shut_down(self) -> None:
        """Say goodbye to everybody, then end."""
        self.registry.shut_down()
        self.sockets.shut_down()

    def _metrics(self) -> Iterable[Metric]:
        if isinstance(self._udp, KernelSocket):
            self._udp.ask_overflow()
        return collect(
            self.registry, self.engine, self.agents, self._udp.counters, self._door, self.access, self.sockets
        )


def _open(config: TransceiverConfig) -> UdpSocket:
    host, port = parse_host_port(config.listen)
    with naming(config.listen):
        return open_udp(host, port, SocketOptions(dual_stack=host == "::"))


def _own_address(config: TransceiverConfig, bound: TransportAddress) -> TransportAddress:
    """What the route token names."""
    if config.address is not None:
        host, port = parse_host_port(config.address)
        return pack_address(host, port or unpack_address(bound)[1])
    if not any(bound[2:]):  # 0.0.0.0, ::
        if not config.direct:
            raise ConfigError("transceiver.address", "must say where relays reach a socket that listens everywhere")
        return pack_address("127.0.0.1" if len(bound) == 6 else "::1", unpack_address(bound)[1])
    return bound


def _routing(
    config: TransceiverConfig, routing: RoutingConfig, address: TransportAddress
) -> tuple[KeyRing, Trunk | None]:
    if config.direct and not routing.keys:  # nobody else reads our tokens
        host = unpack_address(address)[0]
        network = f"{host}/{32 if len(address) == 6 else 128}"
        routing = RoutingConfig(keys=(f"0:{secrets.token_hex(32)}",), prefix=network, trunk_keys=routing.trunk_keys)
    try:
        keys = KeyRing.parse(routing)
        trunk = None if config.direct and not routing.trunk_keys else Trunk.parse(routing)
        try:
            keys.prefix.host_number(address)
        except ValueError as error:
            raise ValueError(f"routing.prefix: our address {format_address(address)} is {error}") from None
    except ValueError as error:
        key, _, message = str(error).partition(": ")
        raise ConfigError(key, message) from None
    return keys, trunk


def _candidates(config: TransceiverConfig, bound: TransportAddress) -> tuple[Candidate, ...]:
    if config.advertise:
        addresses = [parse_host_port(text) for text in config.advertise]
    else:
        host, port = unpack_address(bound)
        everywhere = not any(bound[2:])
        hosts = [text for text in own_addresses() if host == "::" or ":" not in text] if everywhere else [host]
        addresses = [(text, port) for text in hosts]
    return tuple(
        Candidate(
            foundation=str(index + 1),
            component=1,
            transport="udp",
            priority=candidate_priority("host", local_preference=65535 - index),
            address=host,
            port=port,
            type="host",
        )
        for index, (host, port) in enumerate(addresses)
    )


def _page(web: str) -> Path | None:
    if web == "none":
        return None
    page = Path(web) if web else OWN_PAGE
    if not page.is_dir():
        if web:
            raise ConfigError("transceiver.web", f"{web!r} is not a folder")
        return None
    return page
