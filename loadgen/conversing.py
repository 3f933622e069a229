"""A call that converses: the same call, but for what it says and what it makes of what it hears (`loadgen.conversation`)."""

from __future__ import annotations

from typing import Any

from loadgen.call import Call, CallFigures
from loadgen.conversation import Conversation
from loadgen.distribution import Histogram
from loadgen.script import Habits, Script
from loadgen.stages import CONVERSATION_STAGES
from loadgen.tally import AudioTally
from loadgen.turns import TurnFigures
from loadgen.words import FAREWELL
from protocol.errors import LocalError
from protocol.peer import Peer
from protocol.sdp import Negotiated
from protocol.srtp import Arena

__all__ = ["ConversingCall"]


class ConversingCall(Call):
    stages = CONVERSATION_STAGES

    def __init__(
        self,
        number: int,
        figures: CallFigures,
        script: Script,
        turns: TurnFigures,
        habits: Habits,
        **given: Any,  # noqa: ANN401  (what every call takes)
    ) -> None:
        super().__init__(number, figures, codecs=script.codecs, **given)
        self.conversation = Conversation(number, script, turns, habits)
        self.audio = SpokenFrames(self.conversation, figures.run, number, figures.frame_round_trips)

    @property
    def is_answered(self) -> bool:
        """The conversation is over."""
        return self.conversation.is_over

    def stop_talking(self, now: float) -> None:
        super().stop_talking(now)
        self.conversation.hang_up(now)

    def speak(self, arena: Arena, index: int, lateness: float, now: float) -> int:
        return 0 if now >= self.conversation.due else super().speak(arena, index, lateness, now)

    def tick(self, index: int, lateness: float, now: float) -> bool:
        happens = self.talking and now >= self.conversation.due
        if happens:
            self.conversation.handle_timeout(now)
            self._send_messages(now)
        return super().tick(index, lateness, now) or happens

    def _new_peer(self, negotiated: Negotiated) -> Peer:
        if negotiated.audio is not None:
            self.conversation.use_codec(negotiated.audio.codec.name)
        return super()._new_peer(negotiated)

    def _channel_opened(self, now: float) -> None:
        pass  # nothing to be said before `session.created`

    def _receive_message(self, message: str | bytes, now: float) -> None:
        if isinstance(message, str) and FAREWELL in message:
            super()._receive_message(message, now)
            return
        self.data.received += 1
        self.conversation.receive_untrusted(message, now)
        if self.conversation.is_ready:
            self._reach("session", now)
        self._send_messages(now)

    def _send_messages(self, now: float) -> None:
        """As far as the channel takes them: the rest with the next frame."""
        waiting = self.conversation.messages
        while waiting and self._peer is not None and self._channel is not None:
            try:
                sent = self._peer.send_message(self._channel, waiting[0], now)
            except LocalError:  # the channel is closing
                return
            if not sent:
                return
            self.data.sent += 1
            del waiting[0]


class SpokenFrames(AudioTally):
    """Frames of one conversation. What is heard is another's voice: nothing comes back, so nothing is early or lost."""

    __slots__ = ("_conversation", "_now")

    def __init__(self, conversation: Conversation, run: bytes, call: int, round_trips: Histogram) -> None:
        super().__init__(run, call, round_trips)
        self._conversation = conversation
        self._now = 0.0

    @property
    def early(self) -> int:
        return 0

    @property
    def missing(self) -> int:
        return 0

    def next_frame(self, now: float) -> bytes:
        self._now = now
        return self._conversation.frame()

    def count_sent(self, lateness: float) -> None:
        super().count_sent(lateness)
        self._conversation.frame_left(self._now)

    def receive_untrusted(self, payload: bytes, now: float) -> None:
        self.received += 1
        self._conversation.hear_untrusted(payload, now)
