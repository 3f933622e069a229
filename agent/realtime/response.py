"""One response: what the model says for it becomes items, parts and deltas, in the order that clients rely on.

1. A message opens with its first word or sound, and a function call with its name; either closes what was open.
2. What a model still says after its response has ended comes too late, and is passed over.
3. Sound is counted, not kept: how much there is, and where in it which words are, so that what was cut off can be told.
"""

from __future__ import annotations

import base64
import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from agent.realtime.client_events import ResponseSettings
from agent.realtime.conversation import Conversation
from agent.realtime.items import FunctionCall, Item, Message, OutputAudio, OutputText
from agent.realtime.server_events import (
    ContentPart,
    FunctionArgumentsDelta,
    FunctionArgumentsDone,
    ItemAdded,
    ItemDone,
    OutputAudioDelta,
    OutputAudioDone,
    OutputItemAdded,
    OutputItemDone,
    PartAdded,
    PartDone,
    ResponseBody,
    ResponseCreated,
    ResponseDone,
    ResponseError,
    ServerEvent,
    StatusDetails,
    TextDelta,
    TextDone,
    TranscriptDelta,
    TranscriptDone,
    Usage,
)
from agent.realtime.tables import (
    AudioQueued,
    Cancelled,
    Completed,
    Failed,
    Incomplete,
    Playback,
    Progress,
    new_response_machine,
)
from protocol.realtime.settings import FunctionTool, Settings, ToolChoice

__all__ = ["Limit", "Plan", "Response"]

Limit: TypeAlias = Literal["max_output_tokens", "content_filter"]
Reason: TypeAlias = Literal["turn_detected", "client_cancelled"] | Limit


@dataclass(frozen=True, slots=True)
class Plan:
    """What a model is asked for."""

    response_id: str
    items: tuple[Item, ...]
    instructions: str
    speaks: bool
    voice: str
    speed: float
    tools: tuple[FunctionTool, ...]
    tool_choice: ToolChoice
    max_output_tokens: int | Literal["inf"]
    metadata: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, response_id: str, settings: Settings, change: ResponseSettings, items: tuple[Item, ...]) -> Plan:
        output = change.audio.output if change.audio is not None else None
        voice = output.voice if output is not None else None
        modalities = change.output_modalities or settings.output_modalities
        return cls(
            response_id=response_id,
            items=items,
            instructions=settings.instructions if change.instructions is None else change.instructions,
            speaks=modalities == ["audio"],
            voice=voice or settings.audio.output.voice,
            speed=settings.audio.output.speed,
            tools=tuple(settings.tools if change.tools is None else change.tools),
            tool_choice=settings.tool_choice if change.tool_choice is None else change.tool_choice,
            max_output_tokens=change.max_output_tokens or settings.max_output_tokens,
            metadata=change.metadata or {},
        )


class Response:
    """`conversation`: where its items go; an out-of-band response has one of its own, and no `conversation_id`."""

    def __init__(
        self,
        plan: Plan,
        conversation: Conversation,
        conversation_id: str | None,
        tell: Callable[[ServerEvent], None],
        new_item_id: Callable[[], str],
    ) -> None:
        self.plan = plan
        self.id = plan.response_id
        self.machine = new_response_machine()
        self.awaits_cut = False
        """Its sound is being cut, and how much was heard is not known yet."""
        self.sound_ms = 0.0
        self.spoken: dict[str, float] = {}
        """Its spoken messages, and where in its sound each begins, in milliseconds."""
        self._conversation = conversation
        self._tells_items = conversation_id is not None
        self._tell = tell
        self._new_item_id = new_item_id
        self._open: Message | FunctionCall | None = None
        self._words = ""  # of the open message
        self._body = ResponseBody(
            id=plan.response_id,
            conversation_id=conversation_id,
            output_modalities=["audio" if plan.speaks else "text"],
            max_output_tokens=plan.max_output_tokens,
            audio={"output": {"voice": plan.voice}} if plan.speaks else None,
            metadata=plan.metadata or None,
        )
        tell(ResponseCreated(response=self._body))

    @property
    def has_sound(self) -> bool:
        return bool(self.spoken)

    @property
    def is_generating(self) -> bool:
        return self.machine.state(Progress) is Progress.GENERATING

    @property
    def is_over(self) -> bool:
        """Nothing of it will happen any more."""
        heard = self.machine.state(Playback) in (Playback.HEARD, Playback.CUT)
        return heard and not self.is_generating and not self.awaits_cut

    @property
    def may_sound(self) -> bool:
        return self.is_generating and self.plan.speaks and self.machine.state(Playback) is not Playback.CUT

    # What the model says

    def say(self, text: str) -> None:
        """The next words: of a transcript, if it speaks. Words of a sound that nobody will hear are none."""
        if not self.is_generating or not text or self.machine.state(Playback) is Playback.CUT:
            return
        message = self._message()
        self._words += text
        part = message.content[0]
        if isinstance(part, OutputAudio):
            part.transcript = self._words
        elif isinstance(part, OutputText):
            part.text = self._words
        self._conversation.grown(self._name(message), text)
        delta = TranscriptDelta if self.plan.speaks else TextDelta
        self._tell(delta(**self._place(), delta=text))

    def sound(self, milliseconds: float, audio: bytes | None = None) -> tuple[enum.Enum, ...]:
        """So much sound was queued, or is told as `audio`; what was said so far is heard by its end. The effects of its
        machine."""
        message = self._message()
        name = self._name(message)
        self.spoken.setdefault(name, self.sound_ms)
        self.sound_ms += milliseconds
        self._conversation.spoke(name, milliseconds, len(self._words))
        if audio is not None:
            self._tell(OutputAudioDelta(**self._place(), delta=base64.b64encode(audio).decode()))
        return self.machine.fire(AudioQueued())

    def call(self, name: str, call_id: str) -> None:
        """The model begins to call a function."""
        if not self.is_generating:
            return
        self._close("completed")
        self._begin(
            FunctionCall(name=name, arguments="", call_id=call_id, id=self._new_item_id(), status="in_progress")
        )

    def argue(self, text: str) -> None:
        """The next piece of the call's arguments (JSON)."""
        call = self._open
        if not self.is_generating or not isinstance(call, FunctionCall) or not text:
            return
        call.arguments += text
        self._conversation.grown(self._name(call), text)
        self._tell(FunctionArgumentsDelta(**self._item_place(), call_id=call.call_id, delta=text))

    # How it ends

    def end(
        self,
        event: Completed | Incomplete | Cancelled | Failed,
        *,
        reason: Reason | None = None,
        error: ResponseError | None = None,
        usage: Usage | None = None,
    ) -> tuple[enum.Enum, ...]:
        """The effects of its machine; none if it has ended before."""
        if not self.is_generating:
            return ()
        effects = self.machine.fire(event)
        word = self.machine.state(Progress).name.lower()
        self._close("completed" if isinstance(event, Completed) else "incomplete")
        self._body.status = word  # type: ignore[assignment]  # the states bear the API's names
        details: dict[str, Any] = {"type": word, "reason": reason, "error": error}
        self._body.status_details = None if isinstance(event, Completed) else StatusDetails(**details)
        self._body.usage = usage or Usage()
        self._tell(ResponseDone(response=self._body))
        return effects

    # Items

    def _message(self) -> Message:
        if isinstance(self._open, Message):
            return self._open
        self._close("completed")
        message = Message(role="assistant", content=[], id=self._new_item_id(), status="in_progress")
        self._begin(message)
        self._words = ""
        part = OutputAudio(transcript="") if self.plan.speaks else OutputText("")
        message.content.append(part)
        self._tell(PartAdded(**self._place(), part=self._part()))
        return message

    def _begin(self, item: Message | FunctionCall) -> None:
        self._open = item
        self._body.output.append(item)
        previous = self._conversation.insert(item)
        self._tell(OutputItemAdded(response_id=self.id, output_index=len(self._body.output) - 1, item=item))
        if self._tells_items:
            self._tell(ItemAdded(previous_item_id=previous, item=item))

    def _close(self, status: Literal["completed", "incomplete"]) -> None:
        item = self._open
        if item is None:
            return
        item.status = status
        if isinstance(item, FunctionCall):
            done = FunctionArgumentsDone(
                **self._item_place(), call_id=item.call_id, name=item.name, arguments=item.arguments
            )
            self._tell(done)
        else:
            if self.plan.speaks:
                self._tell(OutputAudioDone(**self._place()))
                self._tell(TranscriptDone(**self._place(), transcript=self._words))
            else:
                self._tell(TextDone(**self._place(), text=self._words))
            self._tell(PartDone(**self._place(), part=self._part()))
        self._tell(OutputItemDone(response_id=self.id, output_index=len(self._body.output) - 1, item=item))
        name = self._name(item)
        if self._tells_items and name in self._conversation:
            self._tell(ItemDone(previous_item_id=self._conversation.previous(name), item=item))
        self._open = None

    def _part(self) -> ContentPart:
        if self.plan.speaks:
            return ContentPart(type="audio", transcript=self._words)
        return ContentPart(type="text", text=self._words)

    def _item_place(self) -> dict[str, Any]:
        assert self._open is not None
        return {
            "response_id": self.id,
            "item_id": self._name(self._open),
            "output_index": len(self._body.output) - 1,
        }

    def _place(self) -> dict[str, Any]:
        return self._item_place() | {"content_index": 0}

    @staticmethod
    def _name(item: Item) -> str:
        assert item.id is not None
        return item.id
