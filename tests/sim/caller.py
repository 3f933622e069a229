"""A caller of the simulation: the load generator's own call, behind a network of its own, with the habits of a client."""

from __future__ import annotations

import enum
import math
from datetime import UTC, datetime
from random import Random

from sim.identities import identity
from sim.plan import Plan

from loadgen.call import Call, CallFigures
from protocol.address import TransportAddress
from protocol.ice import IceFullConfig
from udpio import Conditions, Shaper

__all__ = ["Caller", "Habit"]

WALL = datetime(2026, 11, 1, tzinfo=UTC)
TICK_SECONDS = 0.020
PION_IDLE = 2.0  # ice v2: keepaliveInterval


class Habit(enum.Enum):
    """How a client checks a path that works."""

    CHROMIUM = "chromium"  # every 2.65 s, with USE-CANDIDATE each time
    FIREFOX = "firefox"  # every 5 s, never with USE-CANDIDATE again; aiortc does the same
    OLD_PION = "old-pion"  # only when nothing was sent, or nothing received, for two seconds


RTO = 0.1  # nICEr's; libwebrtc sends new checks even faster

_CHECKS = {
    Habit.CHROMIUM: IceFullConfig(rto=RTO, consent_interval=2.65, repeat_nomination=True),
    Habit.FIREFOX: IceFullConfig(rto=RTO, consent_interval=5.0),
    # It knows no consent: a path that is silent is not given up for a long time.
    Habit.OLD_PION: IceFullConfig(rto=RTO, consent_interval=PION_IDLE, consent_late=math.inf, consent_expired=math.inf),
}


class TalkingCall(Call):
    """A call that also says what a test wants said."""

    def say(self, message: str | bytes, now: float) -> bool:
        """A data message, counted like the call's own; False when the channel is full."""
        assert self._peer is not None
        assert self._channel is not None
        sent = self._peer.send_message(self._channel, message, now)
        if sent:
            self.data.count_sent(message, now)
        self._drain(now)
        return sent


class Caller:
    """`address` is its own, `source` what its network makes of it."""

    def __init__(
        self,
        number: int,
        seed: str,
        figures: CallFigures,
        *,
        now: float,
        address: TransportAddress,
        up: Conditions,
        down: Conditions,
        habit: Habit,
    ) -> None:
        self.number = number
        self.address = address
        self.habit = habit
        self.call = TalkingCall(
            number,
            figures,
            ice=_CHECKS[habit],
            now=now,
            now_wall=WALL,
            entropy=Random(f"{seed} caller").randbytes,
            identity=identity(f"caller {number}"),
        )
        self.call_id = ""
        self.dialled_at = math.inf
        self.ready_at = math.inf
        self.up: Shaper[tuple[TransportAddress, bytes]] = Shaper(up, Random(f"{seed} up"))
        self.down: Shaper[tuple[TransportAddress, bytes]] = Shaper(down, Random(f"{seed} down"))
        self.up_plan: Plan[bytes] = Plan()
        self.down_plan: Plan[bytes] = Plan()
        self.heard_at: list[float] = []  # when RTP arrived
        self.checks_sent: list[tuple[float, bytes]] = []  # Binding requests, with their time
        self._tick_phase = Random(f"{seed} microphone").random() * TICK_SECONDS
        self._tick = math.inf  # the next one's number
        self._media_sent_at = -math.inf
        self._received_at = -math.inf
        self._due = math.inf  # of the call and of the microphone; asked for once after each change

    def start_microphone(self, now: float) -> None:
        self._tick = math.ceil((now - self._tick_phase) / TICK_SECONDS)

    def next_timeout(self) -> float:
        return self._due

    def settle(self) -> None:
        """Something has changed the call."""
        self._due = min(self.call.next_timeout(), self._tick_phase + self._tick * TICK_SECONDS)

    def handle_timeout(self, now: float) -> None:
        if self.call.next_timeout() <= now:
            self.call.handle_timeout(now)
        if self._tick_phase + self._tick * TICK_SECONDS <= now:
            self.call.tick(int(self._tick), 0.0, now)
            self._tick += 1

    def receive_untrusted(self, data: bytes, source: TransportAddress, now: float) -> None:
        self._received_at = now
        self.call.receive_untrusted(data, source, now)
        if data[0] >= 128 and not 192 <= data[1] <= 223:  # RFC 5761 §4: those are RTCP
            self.heard_at.append(now)
        if self.ready_at == math.inf and self.call.is_ready:
            self.ready_at = now

    def take_datagrams(self, now: float) -> list[tuple[bytes, TransportAddress]]:
        """What leaves, after what the client would not have sent was left out."""
        datagrams = []
        for data, destination in self.call.take_datagrams():
            if data[:2] == b"\0\1":
                if self.habit is Habit.OLD_PION and self._is_busy(now):
                    continue
                self.checks_sent.append((now, data))
            elif data[0] >= 128:
                self._media_sent_at = now
            datagrams.append((data, destination))
        return datagrams

    @property
    def setup_seconds(self) -> float:
        """From the answer to a call that is ready: a frame has come back, the channel is open. Infinite before."""
        return self.ready_at - self.dialled_at if self.ready_at < math.inf else math.inf

    def _is_busy(self, now: float) -> bool:
        return now - self._media_sent_at < PION_IDLE and now - self._received_at < PION_IDLE
