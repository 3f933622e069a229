"""The `[transceiver]` section, and what makes it unusable."""

from __future__ import annotations

import ipaddress
import math
import re
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from protocol.routing.token import parse_secret
from protocol.srtp import library_named
from service.addresses import parse_host_port

__all__ = ["INTERNAL_AGENTS", "MAX_WORKERS", "Timeouts", "TransceiverConfig"]

MAX_WORKERS = 256  # two hex digits in the id of a call


ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+")
INTERNAL_AGENTS = ("internal:echo", "internal:meter")


class Timeouts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[transceiver.timeouts]`, in seconds. The first ten are the deadlines of the session tables, by name."""

    ice_connect: float = 15.0
    """From the answer to the first authenticated check."""
    dtls_handshake: float = 10.0
    consent_expiry: float = 20.0
    """From consent late (after `consent_late`) to consent lost: 30 s in all (RFC 7675 §5.1)."""
    backend_connect: float = 5.0
    """For an agent to accept a call."""
    backend_retry: float = 0.5
    """Before the call is offered again, perhaps to another agent."""
    setup: float = 30.0
    """From the answer until media flows."""
    max_session: float = 3600.0
    drain: float = 600.0
    """For calls to end by themselves once the process has been told to go."""
    linger: float = 1.0
    """For goodbyes to arrive."""
    consent_late: float = 10.0
    """Without a valid check for so long, media pauses."""
    request: float = 10.0
    """For a request's body to arrive."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name}: must be a positive number of seconds")


class TransceiverConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The `[transceiver]` section."""

    listen: str = "127.0.0.1:0"
    """The one UDP socket: trunk datagrams of relays and, with `direct`, datagrams of clients."""
    address: str | None = None
    """Where relays reach that socket, if `listen` does not say (0.0.0.0, [::]); inside `routing.prefix`."""
    direct: bool = False
    """Serve clients on the socket itself, without a relay; without it only the trunk is answered."""
    advertise: tuple[str, ...] = ()
    """UDP addresses (of relays) that answers offer to clients; empty with `direct`: our own."""
    setup: Literal["passive", "active"] = "passive"
    """The DTLS role we take when an offer leaves the choice to us (`a=setup:actpass`): `passive`, the server, or `active`,
    the client."""
    http: tuple[str, ...] = ("127.0.0.1:0",)
    """Where signalling listens."""
    admin: str = "127.0.0.1:0"
    agents: tuple[str, ...] = ("ws://127.0.0.1:8790/",)
    """WebSocket addresses of agents; calls are spread over them. `internal:echo`: no agent, what comes goes back;
    `internal:meter`: and callers who ask are told how well their audio came."""
    agent_gather: float = 0.004
    """Seconds for which frames are gathered into one message on a busy link to an agent; on a quiet one nothing waits."""
    web: str = ""
    """Folder of a page to serve at `/`; empty: the checkout's own `web/`; `none`: no page."""
    workers: int = 1
    """Processes, each with a UDP socket of its own (the port of `listen`, and those after it); 0: one for each CPU that may
    be used. Limits are those of each process."""
    max_sessions: int = 1000
    """Calls at once; beyond them offers get 503."""
    max_half_open: int = 500
    """Calls among them that no authenticated check has reached; beyond them the oldest is dropped."""
    max_connections: int = 1024
    """Open HTTP connections."""
    max_connections_per_address: int = 256
    """The same for one client address."""
    api_keys: str = ""
    """File of the API keys that may place calls (docs/signalling.md); empty: none is asked for, and `http` must be loopback."""
    open_access: bool = False
    """Ask for no keys whatever `http` is: something before it says who may come."""
    secret_key: str = ""
    """Seals client secrets: 64 hexadecimal digits or more, the same for all processes that serve one address; empty: drawn at
    the start, so that secrets end with the process."""
    allow_origins: tuple[str, ...] = ()
    """Origins of pages that may call, besides our own: `https://shop.example`; `*`: all. Empty: all, where `api_keys` are asked
    for; else those of loopback. On loopback without keys their hosts are also names by which we may be reached
    (docs/signalling.md)."""
    srtp: Literal["auto", "in place", "public"] = "auto"
    """How libsrtp is reached inside pylibsrtp: `in place` by its own handle, without copies; `public` by its documented
    classes; `auto`, the first of these that there is."""
    latency_budget_us: int = 4000
    """Microseconds that a packet may wait for others while many come, up to 20000; 0: never. Few are never made to wait."""
    identity: str = ""
    """What we call ourselves to agents and in logs; empty: made up from the UDP address."""
    nack: bool = True
    """Ask callers for audio packets that were lost (RTCP NACK), and send ours again to those who ask."""
    transport_cc: bool = True
    """Tell callers that offer transport-wide congestion control when each of their packets came, four times a second. Chromium
    156 sends speech at the same rate with it as without; when it hears of losses it probes the bandwidth with packets without
    payload (at 5 %: 12 to 140 a second were seen)."""
    red: Literal["decline", "accept", "prefer"] = "accept"
    """Redundant audio (RFC 2198) of callers that offer it: `accept` understands it and leaves the choice to them, `prefer`
    asks for it (Chromium then sends each frame twice)."""
    timeouts: Timeouts = Timeouts()

    def __post_init__(self) -> None:
        for key, texts in {
            "listen": (self.listen,),
            "address": () if self.address is None else (self.address,),
            "advertise": self.advertise,
            "http": self.http,
            "admin": (self.admin,),
        }.items():
            for text in texts:
                try:
                    parse_host_port(text)
                except ValueError as error:
                    raise ValueError(f"{key}: {error}") from None
        for url in self.agents:
            parts = urlsplit(url)
            if url in INTERNAL_AGENTS:
                continue
            if parts.scheme not in ("ws", "wss") or not parts.hostname:
                raise ValueError(f"agents: {url!r} is not an address like ws://127.0.0.1:8790/")
        if not (math.isfinite(self.agent_gather) and 0 <= self.agent_gather <= 0.02):
            raise ValueError("agent_gather: must be 0 to 0.02 seconds: a frame lasts that long")
        if not self.agents:
            raise ValueError("agents: at least one address is needed")
        if not self.http:
            raise ValueError("http: at least one address is needed")
        self._check_access()
        if not self.direct and not self.advertise:
            raise ValueError("advertise: without `direct`, answers need the address of a relay to offer")
        try:
            library_named(self.srtp)
        except ValueError as error:
            raise ValueError(f"srtp: {error}") from None
        if not 0 <= self.latency_budget_us <= 20_000:
            raise ValueError("latency_budget_us: must be 0-20000")
        if not 0 <= self.workers <= MAX_WORKERS:
            raise ValueError(f"workers: must be 0 to {MAX_WORKERS}")
        for key in ("max_sessions", "max_half_open", "max_connections", "max_connections_per_address"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}: must be at least 1")

    def _check_access(self) -> None:
        if self.secret_key:
            parse_secret(self.secret_key, "secret_key")
        if self.api_keys and self.open_access:
            raise ValueError("open_access: with `api_keys` access is not open; set one of the two")
        others = [text for text in self.http if not ipaddress.ip_address(parse_host_port(text)[0]).is_loopback]
        for origin in self.allow_origins:
            if origin not in ("*", "null") and not ORIGIN.fullmatch(origin):
                raise ValueError(f"allow_origins: {origin!r} is no origin like https://shop.example")
        if others and not self.api_keys and not self.open_access:
            raise ValueError(
                f"http: {others[0]} can be reached from other machines, and no keys are asked for: set `api_keys`"
                " (python -m transceiver new-key NAME makes one), or `open_access = true` if a proxy before it asks"
            )
