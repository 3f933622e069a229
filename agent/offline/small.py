"""The dialogue `small`: answers in the small language by rules. It sets timers and speaks up when they ring, converts units,
and switches lights.

1. What the caller said is what the recognizer heard, or what the client wrote; with neither, it greets.
2. Lights are the client's where its session declares a function SET_LIGHT (`{"room": …, "on": …}`): it is called, and what it
   returns is said; once with the room ALL, if it lists that, for all of them. Which are on is asked of GET_LIGHTS, if there is
   one. Without, lights are kept in mind, and that is said too.
3. Whoever is not understood hears what could be said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import msgspec
import trio

from agent.config import AgentConfig
from agent.offline.language import (
    ROOMS,
    AskLights,
    AskTimers,
    CancelTimers,
    Convert,
    Goodbye,
    Greeting,
    Help,
    Meaning,
    SetLights,
    SetTimer,
    Thanks,
    understand,
)
from agent.realtime.items import FunctionCall, FunctionCallOutput, Message, text_of
from agent.realtime.parts import SpeakUp, Turn, Writer
from agent.realtime.response import Plan
from agent.realtime.server_events import Usage
from protocol.realtime.settings import FunctionTool

__all__ = ["GET_LIGHTS", "SET_LIGHT", "SmallDialogue", "SmallTalk"]

SET_LIGHT = "set_light"
GET_LIGHTS = "get_lights"
ALL = "all"  # a room

# Implementation constants
MAX_TIMERS = 8
MAX_SECONDS = 24 * 3600
MAX_ROOMS = 16  # of a function's list
MAX_SAID = 600  # letters of what a function returned
MAX_SAID_IN_ALL = 1200  # of what several did
MAX_RESULTS = 64  # the last, that are looked at
MAX_JSON = 4096  # letters: longer ones are text
MAX_NAME = 64  # letters of a room

GREETING = (
    "Hello, this is Antiphon's offline voice. I can set timers, switch lights and convert units. Say help to hear more."
)
HELP = (
    "You can say: set a timer for five minutes. Turn on the light in the kitchen. Which lights are on. "
    "How many feet are two meters. Or: goodbye."
)
NOT_UNDERSTOOD = "Sorry, I did not understand that. Say help to hear what I can do."
NOT_HEARD = "Sorry, I could not hear that."
NOTHING_NEW = "I am listening."
NO_LIGHTS = "I only keep that in mind: this client has no function set light."


class SmallDialogue:
    """`PersonalDialogue`."""

    @classmethod
    def of(cls, config: AgentConfig) -> SmallDialogue:
        return cls()

    def begin(self) -> SmallTalk:
        return SmallTalk()

    async def answer(self, plan: Plan, turn: Turn | None, writer: Writer) -> Usage | None:
        """To somebody of whom nothing is remembered."""
        return await self.begin().answer(plan, turn, writer)


@dataclass(frozen=True, slots=True)
class _Timer:
    rings_at: float
    seconds: int


class SmallTalk:
    """`Companion`: timers and lights of one caller."""

    def __init__(self) -> None:
        self._timers: list[_Timer] = []
        self._rung: list[_Timer] = []  # of which the caller has not been told yet
        self._lights = dict.fromkeys(ROOMS, False)
        self._changed = trio.Event()

    async def run(self, speak_up: SpeakUp) -> None:
        while True:
            self._changed = trio.Event()
            next_at = min((timer.rings_at for timer in self._timers), default=math.inf)
            with trio.move_on_at(next_at):
                await self._changed.wait()
            if self._ring(trio.current_time()):
                speak_up()

    def _ring(self, now: float) -> bool:
        due = [timer for timer in self._timers if timer.rings_at <= now]
        self._timers = [timer for timer in self._timers if timer not in due]
        self._rung = (self._rung + due)[-MAX_TIMERS:]
        return bool(due)

    async def answer(self, plan: Plan, turn: Turn | None, writer: Writer) -> Usage | None:
        self._ring(trio.current_time())
        rung = list(self._rung)
        told = [f"Your timer for {_spoken_time(timer.seconds)} is up." for timer in rung]
        last = plan.items[-1] if plan.items else None
        if isinstance(last, FunctionCallOutput):
            told += self._results(plan)
        elif isinstance(last, Message) and last.role == "user":
            words = await turn.words() if turn is not None else text_of(last)
            told += await self._answer_words(words, plan, writer)
        elif not rung:
            spoken = any(isinstance(item, Message) and item.role != "system" for item in plan.items)
            told.append(NOTHING_NEW if spoken else GREETING)
        if told:
            await writer.write(" ".join(told))
        # Only now: who is interrupted before has told nobody.
        self._rung = [timer for timer in self._rung if timer not in rung]
        return None

    async def _answer_words(self, words: str | None, plan: Plan, writer: Writer) -> list[str]:
        """What is left to say: nothing, if it is up to a function of the client's."""
        meaning = understand(words) if words is not None else None
        tools = {tool.name: tool for tool in plan.tools} if plan.tool_choice != "none" else {}
        if isinstance(meaning, SetLights) and SET_LIGHT in tools:
            for room in _rooms_to_switch(meaning.room, tools[SET_LIGHT]):
                await writer.call(SET_LIGHT)
                await writer.argue(msgspec.json.encode({"room": room, "on": meaning.on}).decode())
            return []
        if isinstance(meaning, AskLights) and GET_LIGHTS in tools:
            await writer.call(GET_LIGHTS)
            await writer.argue("{}")
            return []
        return [self._reply(meaning) if meaning is not None else NOT_HEARD]

    def _reply(self, meaning: Meaning) -> str:
        match meaning:
            case Greeting():
                return "Hello. What can I do for you?"
            case Goodbye():
                return "Goodbye."
            case Thanks():
                return "You are welcome."
            case Help():
                return HELP
            case SetTimer():
                return self._set_timer(meaning.seconds)
            case CancelTimers():
                return self._cancel_timers()
            case AskTimers():
                return self._tell_timers()
            case SetLights():
                return self._switch(meaning)
            case AskLights():
                return _lit(self._lights)
            case Convert():
                return _converted(meaning)
            case _:
                return NOT_UNDERSTOOD

    # Timers

    def _set_timer(self, seconds: int | None) -> str:
        if seconds is None or not 1 <= seconds <= MAX_SECONDS:
            return "For how long? Say, for example: set a timer for five minutes."
        if len(self._timers) >= MAX_TIMERS:
            return f"There are {MAX_TIMERS} timers already. Cancel the timers first."
        self._timers.append(_Timer(trio.current_time() + seconds, seconds))
        self._changed.set()
        return f"I set a timer for {_spoken_time(seconds)}."

    def _cancel_timers(self) -> str:
        count = len(self._timers)
        self._timers.clear()
        return "There is no timer." if not count else "The timer is off." if count == 1 else "All timers are off."

    def _tell_timers(self) -> str:
        now = trio.current_time()
        left = [_spoken_time(max(1, round(timer.rings_at - now))) for timer in sorted(self._timers, key=_moment)]
        return f"There is {_listed(left)} left." if left else "There is no timer."

    # Lights

    def _switch(self, meaning: SetLights) -> str:
        rooms = ROOMS if meaning.room is None else (meaning.room,)
        self._lights.update(dict.fromkeys(rooms, meaning.on))
        return f"{_switched(meaning.room, meaning.on)} {NO_LIGHTS}"

    def _results(self, plan: Plan) -> list[str]:
        """What to say of the functions' results that the conversation ends with."""
        calls = {item.call_id: item for item in plan.items if isinstance(item, FunctionCall)}
        said: list[str] = []
        room = MAX_SAID_IN_ALL
        for item in reversed(plan.items[-MAX_RESULTS:]):
            if not isinstance(item, FunctionCallOutput):
                break
            sentence = self._result(calls.get(item.call_id), item.output)
            if sentence not in said and len(sentence) <= room:
                said.insert(0, sentence)
                room -= len(sentence)
        return said

    def _result(self, call: FunctionCall | None, output: str) -> str:
        result = _decoded(output)
        function = call.name if call is not None else ""
        asked = _decoded(call.arguments) if call is not None and function == SET_LIGHT else None
        if isinstance(result, dict) and (result.get("error") or result.get("ok") is False):
            return f"That did not work: {_said(result.get('error') or 'the lights do not answer')}."
        if isinstance(asked, dict) and isinstance(asked.get("on"), bool):
            room, on = _plain(str(asked.get("room", ""))[:MAX_NAME]), bool(asked["on"])
            rooms = ROOMS if room == ALL else (room,) if room in self._lights else ()
            self._lights.update(dict.fromkeys(rooms, on))
            return _switched(None if room in ("", ALL) else room, on)
        if function == GET_LIGHTS and isinstance(result, dict) and all(isinstance(on, bool) for on in result.values()):
            return _lit(result)
        return _said(result) or "Done."


def _moment(timer: _Timer) -> float:
    return timer.rings_at


def _rooms_to_switch(room: str | None, tool: FunctionTool) -> tuple[str, ...]:
    """As the function spells them, if it says how (`enum`). `room`: None for all, which is one where the function has it."""
    place: Any = tool.parameters
    for key in ("properties", "room", "enum"):
        place = place.get(key) if isinstance(place, dict) else None
    names = [name for name in place if isinstance(name, str)][:MAX_ROOMS] if isinstance(place, list) else []
    wanted = ALL if room is None else room
    if (name := next((name for name in names if _plain(name) == wanted), None)) is not None:
        return (name,)
    return (room,) if room is not None else tuple(names) or ROOMS


def _plain(room: str) -> str:
    return room.replace("_", " ").lower()


def _decoded(text: str) -> Any:  # noqa: ANN401  (what a function returns is anything)
    if len(text) > MAX_JSON:
        return text[:MAX_SAID]
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text


def _said(result: Any) -> str:  # noqa: ANN401
    """The result of a function, in words."""
    if isinstance(result, dict):
        text = ", ".join(f"{name}: {value}" for name, value in result.items())
    else:
        text = "" if result is None else str(result)
    return text[:MAX_SAID].replace("_", " ")


def _lit(lights: dict[str, bool]) -> str:
    """`lights`: by rooms, whether they are on."""
    lit = [_plain(room) for room, on in lights.items() if on]
    return f"The light is on in the {_listed(lit)}."[:MAX_SAID] if lit else "All lights are off."


def _switched(room: str | None, on: bool) -> str:
    word = "on" if on else "off"
    return f"The light in the {room} is {word}." if room else f"All lights are {word}."


def _converted(meaning: Convert) -> str:
    source, target = meaning.source, meaning.target
    value = (meaning.amount * source.factor + source.offset - target.offset) / target.factor
    said, rounded = _spoken_number(meaning.amount), _spoken_number(value)
    one = source.one if said == "1" else source.many
    return f"{said} {one} {'is' if said == '1' else 'are'} {rounded} {target.one if rounded == '1' else target.many}."


def _spoken_number(value: float) -> str:
    """With three digits that count; as whole as it is."""
    return f"{value:.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"


def _spoken_time(seconds: int) -> str:
    parts = []
    for name, size in (("hour", 3600), ("minute", 60), ("second", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {name}{'' if count == 1 else 's'}")
    return _listed(parts)


def _listed(parts: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1]))) if parts else ""
