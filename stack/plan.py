"""Which process gets which addresses and keys: the wiring of one machine, as environment for the children.

What the user configured (file or environment) is left alone; only what is open is filled in here.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

from service.addresses import own_addresses, parse_host_port, to_host_port
from service.config import ConfigError, given_keys, overriding
from stack.config import StackConfig

__all__ = ["Plan", "has_voice"]

MAX_ADVERTISED = 8
VOICE, REALTIME = "voice", "realtime"
OFFERED = (REALTIME, "parrot", "echo")  # callers may choose among these, unless the user named an agent of his own
VOICE_NEEDS = ("pocketsphinx", "espeakng_loader")  # the packages of its extra
DRAIN_SECONDS = 2.0  # who ends a stack on his own machine does not want to wait for its calls
HTTP = "http://"
ATTEMPTS = 100
_WILDCARDS = {4: "0.0.0.0", 6: "::"}


class Plan:
    """Environments of the children, in the order in which they can be known."""

    def __init__(self, config: StackConfig, file: Path | None, environ: Mapping[str, str]) -> None:
        self._config = config
        self._file = file
        self._environ = dict(environ) | ({"ANTIPHON_CONFIG": str(file)} if file is not None else {})
        # One secret for every run: all that holds it is started by us.
        keys = {"keys": [f"1:{secrets.token_hex(32)}"], "trunk_keys": [secrets.token_hex(32)]}
        self._environ |= self._open("routing", keys)

    def check_access(self) -> None:
        """Before anything starts. Raises ConfigError if strangers could call and nobody said that they may."""
        given = given_keys("transceiver", self._file, self._environ)
        if not given & {"api_keys", "http", "open_access"} and not ipaddress.ip_address(self._config.host).is_loopback:
            message = (
                f"{self._config.host} can be reached from other machines: give --api-keys FILE"
                " (.venv/bin/python -m transceiver new-key NAME >> FILE makes a key), or --open-access to let anybody call"
            )
            raise ConfigError("stack.host", message)

    def agent(self) -> dict[str, str]:
        offered = (VOICE, *OFFERED) if has_voice() else OFFERED
        first = offered[0] if self._config.agent == "auto" else self._config.agent
        named = "agent" in given_keys("agent", self._file, self._environ)  # past us, in the agent's own section
        also = [name for name in offered if name != first] if first in offered and not named else []
        values = {"agent": first, "also": also, "listen": "127.0.0.1:0", "drain_seconds": DRAIN_SECONDS}
        # An agent of the user's own is looked for where he stands, after the checkout.
        found_at = os.pathsep.join([os.getcwd(), *filter(None, [self._environ.get("PYTHONPATH")])])
        return self._environ | self._open("agent", values) | {"PYTHONPATH": found_at}

    def relay(self) -> dict[str, str]:
        values: dict[str, object] = {"listen": self.listen_addresses(), "trunk": "127.0.0.1:0"}
        values["workers"] = self._config.workers
        if (count := self._config.workers or _usable_cpus()) > 1:
            values["trunk"] = to_host_port("127.0.0.1", _free_ports("127.0.0.1", count))
        return self._environ | self._open("relay", values)

    def transceiver(self, agent: str, relay_listen: list[str]) -> dict[str, str]:
        """`agent` is the agent's WebSocket address, `relay_listen` what the relay bound (empty: serve callers directly)."""
        http = [to_host_port(self._config.host, self._config.port)]
        values: dict[str, object] = {"http": http, "agents": [agent], "timeouts_drain": DRAIN_SECONDS}
        values["workers"] = self._config.workers
        values["secret_key"] = secrets.token_hex(32)  # client secrets outlive a transceiver that is started again
        if relay_listen:
            values |= {"listen": "127.0.0.1:0", "advertise": self._advertised(relay_listen)}
        else:
            # One socket for all callers: the transceiver has no ingress per address, so it takes the first address only.
            first = self.listen_addresses()[0]
            host = ipaddress.ip_address(parse_host_port(first)[0])
            if host.is_unspecified:
                raise ConfigError("stack.public_address", "with `direct` the first must be an address of this machine")
            values |= {"listen": first, "direct": True}
            self._environ |= self._open("routing", {"prefix": str(ipaddress.ip_network(host))})
        return self._environ | self._open("transceiver", values)

    def listen_addresses(self) -> list[str]:
        """Where the relay listens: one socket for each address, so that replies leave from where the caller spoke to."""
        own = _bindable(own_addresses())
        wanted = self._config.public_address or own
        # Behind a one-to-one NAT a public address is not ours: what is sent to it arrives on whatever interface there is.
        wildcards = {_WILDCARDS[_version(host)] for host in wanted if host not in own}
        hosts = [host for host in wanted if host in own and _WILDCARDS[_version(host)] not in wildcards]
        return [to_host_port(host, self._config.udp_port) for host in [*hosts, *sorted(wildcards)][:MAX_ADVERTISED]]

    def rebind_relay(self, bound: Mapping[str, object]) -> dict[str, str]:
        """A relay that comes back takes the addresses it had: callers and transceivers hold them."""
        values = {key: bound[key] for key in ("listen", "trunk") if key in bound}
        if isinstance(bound.get("trunk"), list):  # of several workers: it stays what it was given, the first of a row
            del values["trunk"]
        return overriding("relay", values | _admin(bound))

    def rebind_agent(self, bound: Mapping[str, object]) -> dict[str, str]:
        return overriding("agent", {"listen": bound["listen"]} | _admin(bound))

    def rebind_transceiver(self, bound: Mapping[str, object]) -> dict[str, str]:
        http = bound["http"]
        assert isinstance(http, list)
        return overriding("transceiver", {"http": [url.removeprefix("http://") for url in http]} | _admin(bound))

    def _advertised(self, relay_listen: list[str]) -> list[str]:
        if not self._config.public_address:
            return relay_listen
        ports = dict(map(parse_host_port, relay_listen))
        public = self._config.public_address
        return [to_host_port(host, ports.get(host) or ports[_WILDCARDS[_version(host)]]) for host in public]

    def _open(self, section: str, values: Mapping[str, object]) -> dict[str, str]:
        given = given_keys(section, self._file, self._environ)
        left = {key: value for key, value in values.items() if key not in given and key.partition("_")[0] not in given}
        return overriding(section, left)


def has_voice() -> bool:
    """Whether the extra of the offline voice is installed."""
    return all(find_spec(name) is not None for name in VOICE_NEEDS)


def _bindable(hosts: list[str]) -> list[str]:
    """Those addresses that a UDP socket can really have (an IPv6 address may still be tentative)."""
    usable = []
    for host in hosts:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((host, 0))
            except OSError:
                continue
        usable.append(host)
    return usable


def _admin(bound: Mapping[str, object]) -> dict[str, object]:
    """Whoever watches a process goes on watching the next one; nothing if it has no admin port."""
    url = bound.get("admin")
    return {"admin": url.removeprefix(HTTP)} if isinstance(url, str) and url.startswith(HTTP) else {}


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_ports(host: str, count: int) -> int:
    """The first of so many UDP ports in a row that nobody has. Raises ConfigError."""
    for _ in range(ATTEMPTS):
        with ExitStack() as probes:
            first = 0
            try:
                for number in range(count):
                    probe = probes.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                    probe.bind((host, first + number if number else 0))
                    first = first or probe.getsockname()[1]
            except (OSError, OverflowError):
                continue
            return first
    raise ConfigError("stack.workers", f"there are no {count} free UDP ports in a row; set relay.trunk")


def _version(host: str) -> int:
    return ipaddress.ip_address(host).version
