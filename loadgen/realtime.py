"""The little of the Realtime API that a caller needs to follow a conversation: what it reads of events, what it sends."""

from __future__ import annotations

import re

import msgspec

__all__ = [
    "Event",
    "FunctionResult",
    "House",
    "Output",
    "read_event_untrusted",
    "reason_of",
    "response_create",
    "session_update",
]

# Implementation constants
MAX_REASON = 40  # characters of a word that the other side chose
ROOMS = ("kitchen", "living room", "bedroom", "bathroom", "hall")

TOOLS = [
    {
        "type": "function",
        "name": "set_light",
        "description": "Switch the light of a room on or off; room `all` is every room.",
        "parameters": {
            "type": "object",
            "properties": {"room": {"type": "string", "enum": [*ROOMS, "all"]}, "on": {"type": "boolean"}},
            "required": ["room", "on"],
        },
    },
    {
        "type": "function",
        "name": "get_lights",
        "description": "Which rooms have light: an object from room to true or false.",
        "parameters": {"type": "object", "properties": {}},
    },
]


class Output(msgspec.Struct):
    """An item of a response; the fields of a function call, empty for others."""

    type: str = ""
    call_id: str = ""
    name: str = ""
    arguments: str = ""


class Error(msgspec.Struct):
    code: str | None = None
    type: str | None = None


class Details(msgspec.Struct):
    error: Error | None = None


class Body(msgspec.Struct):
    """A response."""

    id: str = ""
    status: str = ""
    status_details: Details | None = None
    output: list[Output] = []


class Event(msgspec.Struct):
    """Of any type: the fields that we look at."""

    type: str
    response_id: str | None = None
    response: Body | None = None
    transcript: str | None = None
    error: Error | None = None


_DECODER = msgspec.json.Decoder(Event)


def read_event_untrusted(message: str | bytes) -> Event | None:
    """None for what is no event, or has fields that cannot be."""
    try:
        return _DECODER.decode(message)
    except (msgspec.DecodeError, RecursionError):
        return None


def reason_of(error: Error | None, otherwise: str) -> str:
    """A word fit for a report."""
    word = (error.code or error.type) if error is not None else None
    return re.sub(r"[^a-z0-9_]+", "_", word.lower())[:MAX_REASON].strip("_") or otherwise if word else otherwise


def session_update() -> str:
    """Our functions, and that we want to know what was heard."""
    session = {"type": "realtime", "tools": TOOLS, "audio": {"input": {"transcription": {"model": "default"}}}}
    return _event("session.update", session=session)


def response_create() -> str:
    return _event("response.create")


class FunctionResult(msgspec.Struct, tag_field="type", tag="function_call_output"):
    call_id: str
    output: str

    def event(self) -> str:
        return _event("conversation.item.create", item=self)


class House:
    """The lights that `set_light` and `get_lights` are about: one house for each call."""

    def __init__(self) -> None:
        self.lights = dict.fromkeys(ROOMS, False)

    def run_untrusted(self, call: Output) -> FunctionResult:
        """Whatever was called, there is a result; `{"error": …}` if it cannot be."""
        return FunctionResult(call.call_id, msgspec.json.encode(self._result_untrusted(call)).decode())

    def _result_untrusted(self, call: Output) -> dict[str, bool] | dict[str, str]:
        if call.name == "get_lights":
            return self.lights
        if call.name != "set_light":
            return {"error": "there is no such function"}
        try:
            wish = msgspec.json.decode(call.arguments, type=_Wish)
        except (msgspec.DecodeError, RecursionError):
            return {"error": "the arguments are no room and whether it is to have light"}
        rooms = ROOMS if wish.room == "all" else (wish.room,)
        if not all(room in self.lights for room in rooms):
            return {"error": "there is no such room"}
        self.lights.update(dict.fromkeys(rooms, wish.on))
        return self.lights


class _Wish(msgspec.Struct):
    room: str
    on: bool


def _event(kind: str, **fields: object) -> str:
    return msgspec.json.encode({"type": kind, **fields}).decode()
