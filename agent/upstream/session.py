"""The core of a bridge: what the client, the service and the player say goes in, orders come out. No I/O, no clock.

1. The service is called. Nothing goes up before its `session.created`; then, in order: what the client asked so far, the
   conversation in words, what waits.
2. Events pass as the text they came as. `_FROM_SERVICE` and `_FROM_CLIENT` name those that do not, or that are looked into.
3. Whoever speaks over the service silences it: flush, then tell the service what was heard.
4. A lost service costs neither the call nor the client's patience: its responses end, an error says what is lost, and after
   a while it is called again.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, ClassVar

from agent.upstream.audience import Audience
from agent.upstream.contact import LOST, WHAT_IS_LOST, Failure, Reach
from agent.upstream.events import (
    ClientHead,
    EventMaker,
    Purpose,
    ServiceEvent,
    decode_client_head_untrusted,
    decode_object_untrusted,
    decode_service_event_untrusted,
    encode,
    fits_channel,
    without_sound,
    word,
)
from agent.upstream.memory import Memory
from agent.upstream.orders import Dial, EndCall, Flush, HangUp, Order, ToClient
from agent.upstream.playing import Cut, Playing
from agent.upstream.settings import ClientSettings, interrupts, with_our_format
from agent.upstream.statistics import UpstreamStatistics
from agent.upstream.tables import Effect, Greeted
from agent.upstream.uplink import Uplink
from protocol.errors import DecodeError
from protocol.wire import Entropy

__all__ = ["BridgeSession"]


class BridgeSession:
    def __init__(
        self,
        reach: Reach,
        uplink: Uplink,
        statistics: UpstreamStatistics,
        *,
        offered: dict[str, Any] | None,
        has_audio: bool,
        max_sound_bytes: int,
        entropy: Entropy,
    ) -> None:
        """`offered`: the session that came with the client's offer."""
        self.playing = Playing(max_sound_bytes, self._tell_of_response)
        self._reach = reach
        self._uplink = uplink
        self._statistics = statistics
        self._has_audio = has_audio
        self._events = EventMaker(entropy)
        self._audience = Audience(self._events)
        self._client = 0  # whose event is being looked at
        self._settings = ClientSettings(offered, statistics.drops)
        self._memory = Memory(statistics.drops)
        self._orders: list[Order] = [Dial()]
        self._session = 0  # of the service: the first, the second …
        self._interrupts = True
        self._restored: set[str] = set()  # items that this session of the service was told
        self._told: set[str] = set()  # what the client was told of this outage
        self._told_garbage = False  # of this connection

    def poll(self) -> list[Order]:
        orders, self._orders = self._orders, []
        return orders

    def next_timeout(self) -> float:
        return self._reach.next_timeout

    def handle_timeout(self, now: float) -> None:
        while now >= self._reach.next_timeout:
            self._carry_out(self._reach.expire(now))

    # The client

    def greet(self, client: int) -> None:
        """A controller has attached."""
        if (text := self._audience.greeting()) is not None:
            self._orders.append(ToClient(text, client))

    def receive_client_untrusted(self, data: str | bytes, client: int = 0) -> None:
        """A message of the caller's data channel, or of the controller with that channel."""
        self._client = client
        try:
            text = data if isinstance(data, str) else data.decode()
            head = decode_client_head_untrusted(text)
        except (UnicodeDecodeError, DecodeError):
            self._refuse("invalid_json", "An event must be a JSON object with a type.", None)
            return
        self._audience.spoke(word(head.event_id), client)
        passes = self._FROM_CLIENT.get(head.type, BridgeSession._pass_up)(self, text, head)
        if not passes:
            self._statistics.drops["client_event_waits"] += 1
            self._refuse("server_busy", "The model's server takes events too slowly; this one was dropped.", head)

    def _pass_up(self, text: str, head: ClientHead) -> bool:
        return self._uplink.tell(text)

    def _commit_input(self, text: str, head: ClientHead) -> bool:
        return self._uplink.commit(text)

    def _clear_input(self, text: str, head: ClientHead) -> bool:
        return self._uplink.clear(text)

    def _drop_append(self, text: str, head: ClientHead) -> bool:
        self._statistics.drops["client_append"] += 1  # audio is media
        return True

    def _clear_output(self, text: str, head: ClientHead) -> bool:
        self._cut()
        return True

    def _update_session(self, text: str, head: ClientHead) -> bool:
        event = decode_object_untrusted(text)
        session = event.get("session")
        if not isinstance(session, dict):
            return self._uplink.tell(text)
        if self._settings.is_full:
            return False
        event_id = word(head.event_id)
        if event_id is None or self._settings.awaits(event_id):
            event_id = self._events.id_for(Purpose.UPDATE)
            self._audience.spoke(event_id, self._client)
        told = encode({**event, "event_id": event_id, "session": self._settings.for_service(session)})
        if told is None or not self._uplink.tell(told):
            return False
        self._settings.told(event_id, told, session)
        return True

    def _create_response(self, text: str, head: ClientHead) -> bool:
        event = decode_object_untrusted(text)
        response = event.get("response")
        if not isinstance(response, dict) or "audio" not in response:
            return self._uplink.tell(text)
        told = encode({**event, "response": with_our_format(response)})
        return told is not None and self._uplink.tell(told)

    _FROM_CLIENT: ClassVar[dict[str, Callable[[BridgeSession, str, ClientHead], bool]]] = {
        "session.update": _update_session,
        "response.create": _create_response,
        "input_audio_buffer.append": _drop_append,
        "input_audio_buffer.commit": _commit_input,
        "input_audio_buffer.clear": _clear_input,
        "output_audio_buffer.clear": _clear_output,
    }

    # The service

    def receive_service_untrusted(self, data: str | bytes, now: float) -> None:
        """A message of its WebSocket."""
        if not self._reach.is_up:
            return
        try:
            if isinstance(data, bytes):
                raise DecodeError("not_an_event")
            event = decode_service_event_untrusted(data)
            self._FROM_SERVICE.get(event.type, BridgeSession._pass_down)(self, data, event, now)
        except DecodeError as error:
            self._statistics.drops[error.reason] += 1
            if error.reason != "late_audio" and not self._told_garbage:
                self._told_garbage = True
                self._tell_error("upstream_invalid", "The model's server sent what is no event; it was dropped.")

    def lost(self, failure: Failure, now: float) -> None:
        """The connection, or the attempt, is over."""
        self._carry_out(self._reach.lose(failure, now))

    def _pass_down(self, text: str, event: ServiceEvent, now: float, client: int | None = None) -> None:
        if not fits_channel(text):
            self._statistics.drops["event_too_large"] += 1
            kind = word(event.type) or "?"
            self._tell_error("upstream_event_too_large", f"An event {kind[:64]} is too large for a data channel.")
            return
        self._statistics.events_down += 1
        self._orders.append(ToClient(text, client))

    def _on_session_created(self, text: str, event: ServiceEvent, now: float) -> None:
        is_first = self._session == 0
        session = decode_object_untrusted(event.session)
        self._interrupts = interrupts(session)
        self._carry_out(self._reach.fire(Greeted(), now))
        if is_first:
            self._pass_session(text, event, session, now)

    def _on_session_updated(self, text: str, event: ServiceEvent, now: float) -> None:
        session = decode_object_untrusted(event.session)
        self._interrupts = interrupts(session)
        self._settings.accepted()
        self._pass_session(text, event, session, now)

    def _pass_session(self, text: str, event: ServiceEvent, session: dict[str, Any], now: float) -> None:
        if self._settings.differs and session:
            session = self._settings.for_client(session)
            text = encode({**decode_object_untrusted(text), "session": session}) or text
        self._audience.was_told(session)
        self._pass_down(text, event, now)

    def _on_error(self, text: str, event: ServiceEvent, now: float) -> None:
        error = decode_object_untrusted(event.error)
        event_id = word(error.get("event_id"))
        if event_id is not None:
            self._settings.refused(event_id)
        purpose, sender = self._events.purpose_of(event_id), self._audience.sender_of(event_id)
        if purpose is None:
            self._pass_down(text, event, now, sender)
        elif purpose in (Purpose.UPDATE, Purpose.REPLAY):  # what it says is about the client's wishes
            told = encode({**decode_object_untrusted(text), "error": {**error, "event_id": None}})
            self._pass_down(told or text, event, now, sender)
        else:
            self._statistics.drops[f"refused_{purpose.name.lower()}"] += 1

    def _on_response_created(self, text: str, event: ServiceEvent, now: float) -> None:
        response_id = word(decode_object_untrusted(event.response).get("id"))
        if response_id is not None:
            self.playing.created(response_id, bytes(event.response))
        self._pass_down(text, event, now)

    def _on_response_done(self, text: str, event: ServiceEvent, now: float) -> None:
        self._pass_down(text, event, now)
        response_id = word(decode_object_untrusted(event.response).get("id"))
        if response_id is not None:
            self.playing.done(response_id)

    def _on_audio(self, text: str, event: ServiceEvent, now: float) -> None:
        if self._has_audio:
            self.playing.put_sound_untrusted(event, self._session)
        else:
            self._statistics.drops["audio_unheard"] += 1

    def _on_audio_done(self, text: str, event: ServiceEvent, now: float) -> None:
        self.playing.part_done(event)
        self._pass_down(text, event, now)

    def _on_speech_started(self, text: str, event: ServiceEvent, now: float) -> None:
        self._pass_down(text, event, now)
        if self._interrupts:
            self._cut()

    def _on_item(self, text: str, event: ServiceEvent, now: float) -> None:
        self._memory.note(event)
        item_id = word(decode_object_untrusted(event.item).get("id")) if self._restored else None
        if item_id not in self._restored:  # else the client knows it
            self._pass_down(text, event, now)

    def _on_output_item(self, text: str, event: ServiceEvent, now: float) -> None:
        self._memory.note(event, may_be_new=False)  # that of an out-of-band response is not in the conversation
        self._pass_down(text, event, now)

    def _on_transcript(self, text: str, event: ServiceEvent, now: float) -> None:
        self._memory.note_transcript(event)
        self._pass_down(text, event, now)

    def _on_item_deleted(self, text: str, event: ServiceEvent, now: float) -> None:
        self._memory.delete(word(event.item_id) or "")
        self._pass_down(text, event, now)

    def _on_item_retrieved(self, text: str, event: ServiceEvent, now: float) -> None:
        if not fits_channel(text):
            text = without_sound(text) or text
        self._pass_down(text, event, now)

    def _drop(self, text: str, event: ServiceEvent, now: float) -> None:
        self._statistics.drops["output_audio_buffer"] += 1  # these are ours to tell

    _FROM_SERVICE: ClassVar[dict[str, Callable[[BridgeSession, str, ServiceEvent, float], None]]] = {
        "session.created": _on_session_created,
        "session.updated": _on_session_updated,
        "error": _on_error,
        "response.created": _on_response_created,
        "response.done": _on_response_done,
        "response.output_audio.delta": _on_audio,
        "response.audio.delta": _on_audio,  # as the beta of the API called it, and some servers do
        "response.output_audio.done": _on_audio_done,
        "response.audio.done": _on_audio_done,
        "response.output_item.added": _on_output_item,
        "response.output_item.done": _on_output_item,
        "input_audio_buffer.speech_started": _on_speech_started,
        "conversation.item.added": _on_item,
        "conversation.item.created": _on_item,
        "conversation.item.done": _on_item,
        "conversation.item.retrieved": _on_item_retrieved,
        "conversation.item.deleted": _on_item_deleted,
        "conversation.item.input_audio_transcription.completed": _on_transcript,
        "output_audio_buffer.started": _drop,
        "output_audio_buffer.stopped": _drop,
        "output_audio_buffer.cleared": _drop,
    }

    # What is heard

    def _cut(self) -> None:
        cut = self.playing.cut()
        if cut is not None:
            self._statistics.interruptions += 1
            self._orders.append(Flush(cut))

    def was_cut(self, cut: Cut, played: float) -> None:
        """The flush is done; `played` is exact."""
        for sound in self.playing.was_cut(cut, played):
            heard = min(sound.heard_ms, sound.received_ms)
            self._memory.note_heard(sound.item_id, heard / sound.received_ms)
            if sound.session == self._session and self._uplink.is_open:
                event = {
                    "type": "conversation.item.truncate",
                    "event_id": self._events.id_for(Purpose.TRUNCATE),
                    "item_id": sound.item_id,
                    "content_index": sound.content_index,
                    "audio_end_ms": int(heard),
                }
                self._uplink.tell(encode(event) or "")

    # What the tables ask

    def _carry_out(self, effects: tuple[enum.Enum, ...]) -> None:
        for effect in effects:
            match effect:
                case Effect.DIAL:
                    self._told_garbage = False
                    self._orders.append(Dial())
                case Effect.HANG_UP:
                    self._orders.append(HangUp())
                case Effect.RESTORE:
                    self._restore()
                case Effect.SETTLE:
                    self._settle()
                case Effect.TELL_LOSS:
                    self._statistics.losses[self._reach.failure.word] += 1
                    self._tell_loss(self._reach.failure)
                case Effect.END_CALL:
                    why = self._reach.failure.word
                    self._tell_error("upstream_given_up", f"{LOST[why]}; it is given up.")
                    self._orders.append(EndCall(f"upstream_{why}"))
        if self._reach.has_lasted:
            self._told.clear()

    def _restore(self) -> None:
        self._session += 1
        self._statistics.connects += 1
        self.playing.begin_session()
        first = []
        settings = self._settings.for_new_session()
        if settings is not None:
            event_id = self._events.id_for(Purpose.REPLAY)
            text = encode({"type": "session.update", "event_id": event_id, "session": settings})
            if text is not None:
                first.append(text)
                self._settings.told_all(event_id, text)
        items = self._memory.items()
        self._restored = {item["id"] for item in items}
        self._statistics.restored_items += len(items)
        for item in items:
            event = {"type": "conversation.item.create", "event_id": self._events.id_for(Purpose.ITEM), "item": item}
            first.append(encode(event) or "")
        self._uplink.open(first)

    def _settle(self) -> None:
        self._uplink.close()
        self._settings.lose_service(self._uplink.holds)
        details = {"type": "failed", "error": {"type": "server_error", "code": "upstream_lost"}}
        for response_id, created in self.playing.under_way():
            known = {"object": "realtime.response", "output": [], **decode_object_untrusted(created), "id": response_id}
            response = {**known, "status": "failed", "status_details": details}
            self._orders.append(ToClient(self._events.tell("response.done", response=response)))
            self.playing.done(response_id)

    def _tell_loss(self, failure: Failure) -> None:
        """Once an outage for each kind of failure."""
        if failure.word in self._told:
            return
        self._told.add(failure.word)
        detail = f" ({failure.detail})" if failure.detail else ""
        lost = WHAT_IS_LOST if self._session else ""
        self._tell_error("upstream_lost", f"{LOST[failure.word]}{detail}. It is called again.{lost}")

    # Small things

    def _refuse(self, code: str, message: str, head: ClientHead | None) -> None:
        kind = "server_error" if code == "server_busy" else "invalid_request_error"
        event_id = word(head.event_id) if head is not None else None
        self._orders.append(ToClient(self._events.error(code, message, event_id, kind), self._client))

    def _tell_error(self, code: str, message: str) -> None:
        self._orders.append(ToClient(self._events.error(code, message)))

    def _tell_of_response(self, kind: str, response_id: str) -> None:
        self._orders.append(ToClient(self._events.tell(kind, response_id=response_id)))
