"""Callers of a measurement, in a process of their own: `python -m bench.caller`, told what to do by lines of JSON.

They must cost far less than what they measure. So all of them share one socket, each at an address of its own (`bench.crowd`),
and their media is made before it is sent:

calls     Calls are placed at a rate: offer and answer over HTTP, then real ICE, DTLS and SCTP by the cores of the load
          generator. A call is set up when its data channel is open and a frame of it has come back.
seconds   All frames of a window are made and encrypted beforehand. Then nothing but sendmmsg, each call 50 times a second,
          the calls evenly spread in time; what comes back is counted, and the calls only answer what is not audio (consent
          checks, RTCP). After the window the frames of every tenth call are decrypted and compared.
close     Every call hangs up.
preset    Calls with keys that both sides know, for a server that can do nothing but SRTP.

CPU is that of the servers, from the kernel's accounts. What the callers themselves could not do in time is told (`late`).
"""

from __future__ import annotations

import heapq
import http.client
import itertools
import math
import os
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from urllib.parse import urlsplit

import msgspec

from bench.accounts import Watch
from bench.crowd import RECEIVE_COUNT, Arrival, Crowd, Post, to_pair
from bench.orders import Closed, Opened, Order, Talked, difference
from bench.preset import PresetCall
from loadgen.call import Call, CallFigures
from protocol.address import TransportAddress, pack_address
from protocol.dtls import Identity
from protocol.ice import IceFullConfig
from service.addresses import parse_host_port
from service.ready import announce

# Specification constants
FRAME_SECONDS = 0.020
CALLS_PATH = "/v1/realtime/calls"

# Implementation constants
SETTLE = 0.5  # seconds of media before the window
MAKING = 1.2  # times what it should take until all frames are made
NAP = 0.0002  # seconds between two looks at what came and what is due
IDLE = 0.05  # the same while nothing is asked of us
BEHIND = 0.005  # seconds by which a packet may be late before it counts as such
AFTER = 0.25  # seconds for what is on its way when a window ends
SETUP_LIMIT = 15.0  # seconds for calls to come into being after the last was placed
FAREWELL = 1.3  # seconds for the servers to be done with calls that ended: ours linger for a second
CHECKED = 10  # every tenth call's frames are decrypted afterwards
CONSENT_SECONDS = 4.0
CONSENT_PATIENCE = 6.0  # so that another check can be answered
HTTP_LIMIT = 20.0


class Member:
    """A call, and the address it lives at."""

    __slots__ = ("call", "due", "heard", "host", "name")

    def __init__(self, call: Call | PresetCall, name: str) -> None:
        self.call = call
        self.name = name
        self.host = socket.inet_aton(name)
        self.due = math.inf
        self.heard: list[Arrival] = []


class Window:
    """Packets in a row, each with its time."""

    def __init__(self, post: Post, began: float, gap: float) -> None:
        self._post, self._began, self._gap = post, began, gap
        self.sent = self.heard = self.late = 0

    def send(self, fd: int, until: int, now: float) -> None:
        due = min(until, int((now - self._began) / self._gap) + 1)
        if due > self.sent:
            taken = self._post.send(fd, due - self.sent)
            if now - self._began - self.sent * self._gap > BEHIND:
                self.late += taken
            self.sent += taken


class Callers:
    def __init__(self) -> None:
        self._crowd = Crowd()
        self._crowd.hear_to_whom()
        self._identity = Identity.generate(datetime.now(UTC))  # making one for each would cost us more than the calls
        self._figures = CallFigures(os.urandom(4))
        self._members: dict[bytes, Member] = {}
        self._places: dict[Member, str] = {}  # of calls that can be hung up
        self._frame_at: dict[Member, float] = {}  # of calls that are not set up yet
        self._heap: list[tuple[float, int, Member]] = []
        self._order = itertools.count()
        self._numbers = itertools.count()
        self._began = time.perf_counter()

    def obey(self, order: Order) -> object:
        """Raises OSError, http.client.HTTPException."""
        if order.preset:
            return {"table": self._make_preset(order.preset).hex()}
        if order.target:
            target = pack_address(*parse_host_port(order.target))
            for member in self._members.values():
                assert isinstance(member.call, PresetCall)
                member.call.target = target
            return {}
        if order.calls:
            return self._open(order)
        return self._close(order) if order.close else self._talk(order)

    # Orders

    def _make_preset(self, calls: int) -> bytes:
        table = b""
        for number in range(calls):
            call = PresetCall(number, self._figures, TransportAddress(bytes(6)), entropy=os.urandom)
            member = self._add(call)
            table += pack_address(member.name, self._crowd.port) + call.upward + call.downward
        return table

    def _open(self, order: Order) -> Opened:
        watch = Watch(order.pids)
        resident, before = watch.resident(), watch.usage()
        connection = connect(order.url)
        opened: list[tuple[Call, float]] = []
        waits: list[float] = []
        start = time.perf_counter()
        for number in range(order.calls):
            self.pump(until=start + number / order.rate)
            call = self._new_call()
            offer = call.offer().encode()
            began = time.perf_counter()
            answer, place = post(connection, CALLS_PATH, offer, 201)  # other calls wait as long as this takes
            now = time.perf_counter()
            member = self._add(call)
            self._places[member], self._frame_at[member] = place, now
            call.answered(answer, now)
            self._settle(member, now)
            opened.append((call, began))
            waits.append((now - began) * 1000)
        deadline = time.perf_counter() + SETUP_LIMIT
        while self._frame_at and (now := time.perf_counter()) < deadline:
            self.pump(until=now + NAP)
        self._frame_at.clear()
        for call, _ in opened:
            if not call.is_ready:
                call.fail(f"no_{call.missing_stage}")
        self.pump(until=time.perf_counter() + AFTER)
        connection.close()
        return Opened(
            failures=dict(Counter(call.failure for call, _ in opened if call.failure is not None)),
            usage=difference(watch.usage(), before),
            resident_before=resident,
            resident=watch.resident(),
            first_media_ms=[
                (call.reached["audio"] - began) * 1000 for call, began in opened if "audio" in call.reached
            ],
            answer_ms=waits,
        )

    def _talk(self, order: Order) -> Talked:
        members = [member for member in self._members.values() if not member.call.is_over]
        settle, frames = round(SETTLE / FRAME_SECONDS), round((SETTLE + order.seconds) / FRAME_SECONDS)
        post = self._make_media(members, frames)
        watch, window = Watch(order.pids), Window(post, time.perf_counter() + NAP, FRAME_SECONDS / len(members))
        checked = {member.host: member for member in members[::CHECKED]}
        self._run(window, settle * len(members), checked)
        before, began, heard, window.late = watch.usage(), time.perf_counter(), window.heard, 0
        self._run(window, post.count, checked)
        usage, resident, length = difference(watch.usage(), before), watch.resident(), time.perf_counter() - began
        received = window.heard - heard
        until = time.perf_counter() + AFTER
        while time.perf_counter() < until:
            self._hear(window, checked)
            time.sleep(NAP)
        return Talked(
            calls=len(members),
            seconds=length,
            usage=usage,
            resident=resident,
            sent=post.count - settle * len(members),
            received=received,
            late=window.late,
            lost=post.count - window.heard,
            checked=sum(self._look_back(member) for member in checked.values()),
            to_check=frames * len(checked),
        )

    def _close(self, order: Order) -> Closed:
        watch = Watch(order.pids)
        before = watch.usage()
        connection = connect(order.url)
        for member, place in self._places.items():
            assert isinstance(member.call, Call)
            if not member.call.ended:
                member.call.hung_up = True
                post(connection, place.rstrip("/") + "/hangup", b"", 200)
                self.pump(until=0.0)
        connection.close()
        self.pump(until=time.perf_counter() + FAREWELL)
        usage = difference(watch.usage(), before)
        for member in self._members.values():
            member.call.close(time.perf_counter())
        self._members.clear()
        self._places.clear()
        self._heap.clear()
        return Closed(usage=usage, resident=watch.resident())

    # Calls

    def _add(self, call: Call | PresetCall) -> Member:
        number = next(self._numbers)
        member = Member(call, f"127.{3 + (number >> 16)}.{number >> 8 & 255}.{number & 255}")
        self._members[member.host] = member
        return member

    def _new_call(self) -> Call:
        return Call(
            len(self._members),
            self._figures,
            ice=IceFullConfig(consent_interval=CONSENT_SECONDS, repeat_nomination=True),
            now=time.perf_counter(),
            now_wall=datetime.now(UTC),
            entropy=os.urandom,
            identity=self._identity,
        )

    # Packets

    def pump(self, *, until: float) -> None:
        """What calls need to come into being, and to stay; once at least."""
        while True:
            for arrival in self._crowd.receive():
                if (member := self._members.get(arrival.host)) is not None:
                    self._receive(member, arrival)
            now = time.perf_counter()
            self._run_timers(now)
            if now >= until:
                return
            time.sleep(min(NAP, until - now))

    def _receive(self, member: Member, arrival: Arrival) -> None:
        now = time.perf_counter()
        member.call.receive_untrusted(arrival.data, arrival.source, now)
        self._settle(member, now)

    def _settle(self, member: Member, now: float) -> None:
        """Send what the call has to say, and look at its deadlines again. Until it is set up it sends a frame now and then."""
        call, due = member.call, math.inf
        if member in self._frame_at:
            assert isinstance(call, Call)
            if call.is_ready or call.is_over:
                del self._frame_at[member]
                call.stop_talking(now)
            elif call.talking:
                if now >= self._frame_at[member]:
                    call.tick(self._tick(now), 0.0, now)
                    self._frame_at[member] = now + FRAME_SECONDS
                due = self._frame_at[member]
        self._send(member, call.take_datagrams())
        due = min(due, call.next_timeout())
        if due < member.due:  # one that moved away is found to have nothing to do when its old time comes
            member.due = due
            heapq.heappush(self._heap, (due, next(self._order), member))

    def _send(self, member: Member, datagrams: Iterable[tuple[bytes, TransportAddress]]) -> None:
        for data, target in datagrams:
            self._crowd.send_one(data, member.name, to_pair(target))

    def _run_timers(self, now: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= now:
            due, _, member = heapq.heappop(heap)
            if due == member.due:
                member.due = math.inf
                member.call.handle_timeout(now)
                self._settle(member, now)

    # Media

    def _make_media(self, members: Sequence[Member], frames: int) -> Post:
        """The frames of all calls, in the order in which they leave; what else the calls have to say leaves now."""
        letters: list[tuple[str, bytes]] = []
        targets: list[tuple[str, int]] = []
        start = began = time.perf_counter()
        for number in range(frames):
            for member in members:
                data, target = self._make_frame(member, self._tick(start) + number)
                letters.append((member.name, data))
                targets.append(to_pair(target))
            self.pump(until=0.0)
            if not number:  # timestamps must tell when frames will leave: the rest takes about as long as this for each
                start = began + frames * MAKING * (time.perf_counter() - began)
        self.pump(until=start)
        return Post(letters, targets)

    def _make_frame(self, member: Member, index: int) -> tuple[bytes, TransportAddress]:
        """Raises OSError. While consent is late, because we or the server were, a call makes none."""
        call, deadline = member.call, time.perf_counter() + CONSENT_PATIENCE
        while True:
            now = time.perf_counter()
            call.talking = True
            call.tick(index, 0.0, now)
            call.talking = False
            audio = None
            for data, target in call.take_datagrams():
                if is_audio(data):
                    audio = data, target
                else:
                    self._send(member, [(data, target)])
            if audio is not None:
                return audio
            if now > deadline:
                reason = call.failure if isinstance(call, Call) else None
                raise OSError(f"a call has no media to send: {reason or 'no consent'}")
            self.pump(until=now + IDLE)

    def _run(self, window: Window, until: int, checked: dict[bytes, Member]) -> None:
        while window.sent < until:
            now = time.perf_counter()
            window.send(self._crowd.fd, until, now)
            self._hear(window, checked)
            self._run_timers(now)
            time.sleep(NAP)

    def _hear(self, window: Window, checked: dict[bytes, Member]) -> None:
        while arrivals := self._crowd.receive():
            for arrival in arrivals:
                if is_audio(arrival.data):
                    window.heard += 1
                    if (member := checked.get(arrival.host)) is not None:
                        member.heard.append(arrival)
                elif (member := self._members.get(arrival.host)) is not None:
                    self._receive(member, arrival)
            if len(arrivals) < RECEIVE_COUNT:
                return

    def _look_back(self, member: Member) -> int:
        """How many frames came back as they were sent."""
        audio = member.call.audio
        before = audio.received
        for arrival in member.heard:
            self._receive(member, arrival)
        member.heard.clear()
        return audio.received - before

    def _tick(self, now: float) -> int:
        return int((now - self._began) / FRAME_SECONDS)


def connect(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=HTTP_LIMIT)


def post(connection: http.client.HTTPConnection, path: str, body: bytes, expected: int) -> tuple[bytes, str]:
    """The answer, and where it says the call is. Raises OSError."""
    connection.request("POST", path, body, {"Content-Type": "application/sdp"})
    response = connection.getresponse()
    answer = response.read()
    if response.status != expected:
        raise OSError(f"{path} was answered with {response.status}")
    return answer, urlsplit(response.headers.get("Location", "")).path


def is_audio(data: bytes) -> bool:
    """RTP, told apart from RTCP as RFC 5761 §4 says; STUN and DTLS begin otherwise (RFC 7983)."""
    return 128 <= data[0] < 192 and not 64 <= data[1] & 127 < 96


def main() -> int:
    callers = Callers()
    announce()
    while True:
        while not select.select([sys.stdin], [], [], IDLE)[0]:
            callers.pump(until=0.0)  # calls that do not talk go on
        if not (line := os.read(sys.stdin.fileno(), 65536)):  # we are told one thing at a time
            return 0
        try:
            answer = callers.obey(msgspec.json.decode(line, type=Order))
        except (OSError, http.client.HTTPException) as error:
            answer = {"failed": str(error) or type(error).__name__}
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
