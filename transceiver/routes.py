"""Which call a datagram belongs to.

A STUN request names its call by our ufrag in it (the engine looks there). Everything else is known by the path it came
along, learnt from authenticated checks. Beside it, for the media lane, the same by the address as it lies in the arena:
one word, or the bytes of a trunk descriptor, without a `Path` made for each packet.

A route is an entry of that second table: a call with its lane and its way out. There is one for each call, for the path
it has selected. It may be stale (the call has moved): then its lane is closed, leaves the packet as it is, and the packet
takes the ordinary way, which opens another.
"""

from __future__ import annotations

import socket
from collections import Counter
from typing import TypeAlias

from protocol.address import Path
from protocol.peer import MediaLane
from transceiver.outbox import Outbox, Outlet
from transceiver.session.session import Session
from transceiver.session.tables import Transport
from udpio import name_words

__all__ = ["Route", "RouteTable", "holds"]

# Implementation constants
MAX_PATHS_PER_CALL = 16  # remembered; the ICE agent keeps fewer valid

Sender: TypeAlias = int | bytes
"""An IPv4 sender as one word of the arena; else, and inside the trunk, its transport address."""


class Route:
    """The short way of one call, in and out."""

    __slots__ = ("lane", "outlet", "sender", "session", "table", "target")

    def __init__(
        self, session: Session, lane: MediaLane, outlet: Outlet, table: dict[Sender, Route], sender: Sender
    ) -> None:
        self.session = session
        self.lane = lane
        self.outlet = outlet
        self.target = outlet.target(lane.path.remote)
        self.table = table
        self.sender = sender


class RouteTable:
    """Owned by the engine; bounded by the calls there are, and by `MAX_PATHS_PER_CALL` for each."""

    def __init__(self, outbox: Outbox, drops: Counter[str], *, is_words: bool) -> None:
        self.by_path: dict[Path, Session] = {}
        self.direct: dict[Sender, Route] = {}
        self.trunk: dict[bytes, dict[Sender, Route]] = {}  # by the `local` part of paths
        self._outbox = outbox
        self._drops = drops
        self._is_words = is_words

    def learn(self, session: Session, path: Path) -> None:
        """Datagrams along `path` belong to `session` if an authenticated check came along it, or if one of ours asks there.
        A call that has proven the path it has selected keeps it from then on, unless it fell silent: nobody can take it by
        sending his own checks from a forged address. Nor can he keep a path so, since he proves none."""
        ice = session.peer.ice
        if session.released or not (ice.is_valid(path) or ice.awaits(path)):
            return
        holder = self.by_path.get(path)
        if holder is not None and holder is not session:
            if holds(holder, path):
                self._drops["path_taken"] += 1
                return
            self.close(holder)
        self.by_path[path] = session
        if path in session.paths:  # another call had it in between
            session.paths.remove(path)
        session.paths.append(path)
        if len(session.paths) > MAX_PATHS_PER_CALL:  # the one in use stays, however old
            oldest = session.paths.pop(1 if session.paths[0] == session.peer.ice.selected else 0)
            if self.by_path.get(oldest) is session:
                del self.by_path[oldest]

    def forget(self, session: Session) -> None:
        """The call is over."""
        self.close(session)
        for path in session.paths:
            if self.by_path.get(path) is session:
                del self.by_path[path]
        session.paths.clear()

    def open(self, session: Session) -> None:
        """Let the call's audio take the short way from now on, if there is one and the path is its own."""
        route = session.route
        if route is not None and route.lane.is_open:
            return
        self.close(session)
        deliver = session.conversation.deliver
        lane = session.peer.lane(deliver) if deliver is not None else None
        if lane is None or self.by_path.get(lane.path) is not session:
            return
        path = lane.path
        if path.local:
            table, sender = self.trunk.setdefault(path.local, {}), path.remote
            route = Route(session, lane, self._outbox.outlet(path), table, sender)
        else:
            word = name_words(path.remote, socket.AF_INET)[0] if self._is_words else path.remote
            route = Route(session, lane, self._outbox.outlet(path), self.direct, word)
        session.route = route.table[route.sender] = route

    def close(self, session: Session) -> None:
        route, session.route = session.route, None
        if route is None:
            return
        if route.table.get(route.sender) is route:
            del route.table[route.sender]
        local = route.lane.path.local
        if local and not route.table and self.trunk.get(local) is route.table:
            del self.trunk[local]


def holds(session: Session, path: Path) -> bool:
    """Whether this call has proven that path, and goes along it."""
    ice = session.peer.ice
    return ice.selected == path and ice.proven and session.transport in (Transport.HANDSHAKING, Transport.SECURE)
