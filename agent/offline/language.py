"""The small language that the offline voice understands, spoken or written: its words, its grammar, and what is meant.

    hello · help · thank you · goodbye
    set a timer for five minutes · how much time is left · cancel the timer
    turn on the light in the kitchen · turn all lights off · which lights are on
    how many feet are two meters · convert ten pounds to kilograms · what is twenty degrees celsius in fahrenheit

`GRAMMAR` is for a recognizer that hears nothing else (JSGF). `understand` takes any text, typed or heard, with digits or words
for numbers, and finds the meaning by a few words: people who write say it their own way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

__all__ = [
    "GRAMMAR",
    "ROOMS",
    "UNITS",
    "AskLights",
    "AskTimers",
    "CancelTimers",
    "Convert",
    "Goodbye",
    "Greeting",
    "Help",
    "Meaning",
    "SetLights",
    "SetTimer",
    "Thanks",
    "Unit",
    "Unknown",
    "understand",
]

ROOMS = ("kitchen", "bedroom", "bathroom", "living room", "hall", "office", "garden")


@dataclass(frozen=True, slots=True)
class Unit:
    """`base` of its kind = value × factor + offset."""

    one: str
    many: str
    kind: str
    factor: float
    offset: float = 0.0


UNITS = (
    Unit("second", "seconds", "time", 1.0),
    Unit("minute", "minutes", "time", 60.0),
    Unit("hour", "hours", "time", 3600.0),
    Unit("meter", "meters", "length", 1.0),
    Unit("kilometer", "kilometers", "length", 1000.0),
    Unit("centimeter", "centimeters", "length", 0.01),
    Unit("inch", "inches", "length", 0.0254),
    Unit("foot", "feet", "length", 0.3048),
    Unit("yard", "yards", "length", 0.9144),
    Unit("mile", "miles", "length", 1609.344),
    Unit("gram", "grams", "mass", 0.001),
    Unit("kilogram", "kilograms", "mass", 1.0),
    Unit("ounce", "ounces", "mass", 0.028349523125),
    Unit("pound", "pounds", "mass", 0.45359237),
    Unit("liter", "liters", "volume", 1.0),
    Unit("gallon", "gallons", "volume", 3.785411784),
    Unit("degree celsius", "degrees celsius", "temperature", 1.0),
    Unit("degree fahrenheit", "degrees fahrenheit", "temperature", 5 / 9, -160 / 9),
)
TIME_UNITS = tuple(unit for unit in UNITS if unit.kind == "time")


@dataclass(frozen=True, slots=True)
class Greeting:
    pass


@dataclass(frozen=True, slots=True)
class Goodbye:
    pass


@dataclass(frozen=True, slots=True)
class Thanks:
    pass


@dataclass(frozen=True, slots=True)
class Help:
    pass


@dataclass(frozen=True, slots=True)
class SetTimer:
    """`seconds`: None if it was not said for how long."""

    seconds: int | None


@dataclass(frozen=True, slots=True)
class CancelTimers:
    pass


@dataclass(frozen=True, slots=True)
class AskTimers:
    pass


@dataclass(frozen=True, slots=True)
class SetLights:
    """`room`: None for all of them."""

    room: str | None
    on: bool


@dataclass(frozen=True, slots=True)
class AskLights:
    pass


@dataclass(frozen=True, slots=True)
class Convert:
    amount: float
    source: Unit
    target: Unit


@dataclass(frozen=True, slots=True)
class Unknown:
    pass


Meaning: TypeAlias = (
    Greeting | Goodbye | Thanks | Help | SetTimer | CancelTimers | AskTimers | SetLights | AskLights | Convert | Unknown
)

# Numbers

ONES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEENS = (
    "ten",
    "eleven",
    "twelve",
    *(f"{part}teen" for part in ("thir", "four", "fif", "six", "seven", "eigh", "nine")),
)
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_VALUE = (
    {word: value for value, word in enumerate(ONES, 1)}
    | {word: value for value, word in enumerate(TEENS, 10)}
    | {word: value for value, word in zip(range(20, 100, 10), TENS)}
    | {"zero": 0, "a": 1, "an": 1}
)


def _either(words: Iterable[str]) -> str:
    return " | ".join(words)


def _conversions() -> list[str]:
    """For each kind of unit a rule, so that only what can be converted is heard."""
    rules = []
    for kind in ("length", "mass", "volume", "temperature"):
        units = [unit for unit in UNITS if unit.kind == kind]
        if kind == "temperature":
            many = one = _either(f"[degrees] {unit.many.split()[-1]}" for unit in units)
        else:
            many, one = _either(unit.many for unit in units), _either(unit.one for unit in units)
        rules.append(f"""<{kind}> = {many};
<amount_{kind}> = <number> <{kind}> | (one | a) ({one});
<convert_{kind}> = how many <{kind}> (are | are in | in) <amount_{kind}> |
    convert <amount_{kind}> (to | into) <{kind}> | what is <amount_{kind}> in <{kind}>;""")
    return rules


def _grammar() -> str:
    rules = "\n".join(_conversions())
    return f"""#JSGF V1.0;
grammar antiphon;
public <turn> = [please] <wish> [please];
<wish> = <courtesy> | <timer> | <light> | <convert_length> | <convert_mass> | <convert_volume> | <convert_temperature>;
<courtesy> = hello | hi | good morning | good evening | help | help me | what can you do | thank you | thanks |
    [thank you] (goodbye | bye | bye bye);
<ones> = {_either(ONES)};
<tens> = {_either(TENS)};
<number> = <ones> | {_either(TEENS)} | <tens> [<ones>] | (a | one) hundred;
<timer> = (set | start) a timer for <duration> | (cancel | stop) the timer | how (much time | long) is left;
<duration> = <number> (seconds | minutes | hours) | (one | a) (second | minute) | (one | an) hour | half an hour;
<room> = {_either(ROOMS)};
<light> = (turn | switch) (on | off) <lamp> | (turn | switch) <lamp> (on | off) | which lights are on;
<lamp> = [the] (light | lights) in the <room> | the <room> (light | lights) | all [the] lights;
{rules}
"""


GRAMMAR = _grammar()

# What is meant

MAX_LETTERS = 500  # that are read of what is said, MAX_WORDS at most
MAX_WORDS = 100
MAX_NUMBER = 1e9

_WORD = re.compile(r"\d+(?:[.,]\d+)?|[a-z]+(?:'[a-z]+)?")
_UNIT_OF = {name: unit for unit in UNITS for name in (unit.one, unit.many) if " " not in name} | {
    "celsius": UNITS[-2],
    "centigrade": UNITS[-2],
    "fahrenheit": UNITS[-1],
    "metre": UNITS[3],
    "metres": UNITS[3],
    "kilometres": UNITS[4],
    "litre": UNITS[14],
    "litres": UNITS[14],
    "kilos": UNITS[11],
    "kilo": UNITS[11],
    "km": UNITS[4],
    "kg": UNITS[11],
    "cm": UNITS[5],
    "lbs": UNITS[13],
    "min": UNITS[1],
    "sec": UNITS[0],
}


def understand(text: str) -> Meaning:
    """What somebody who says this wants."""
    words = _WORD.findall(text[:MAX_LETTERS].lower().replace("’", "'").replace("-", " "))[:MAX_WORDS]
    said = frozenset(words)
    if said & {"timer", "timers", "alarm"} or {"time", "left"} <= said or {"long", "left"} <= said:
        return _timer(words, said)
    amount = _amount(words)
    named = [_UNIT_OF[word] for word in words if word in _UNIT_OF]
    if amount is not None and len(named) >= 2:
        number, source = amount
        others = [unit for unit in named if unit != source and unit.kind == source.kind]
        if others:
            return Convert(number, source, others[0])
    if said & {"light", "lights", "lamp", "lamps"} or (_room(words) is not None and said & {"on", "off"}):
        return _lights(words, said)
    if said & {"bye", "goodbye"} or {"see", "you"} <= said:
        return Goodbye()
    if said & {"thanks", "thank"}:
        return Thanks()
    if "help" in said or {"what", "can", "you"} <= said:
        return Help()
    if said & {"hello", "hi", "hey"} or words[:1] == ["good"]:
        return Greeting()
    return Unknown()


def _timer(words: list[str], said: frozenset[str]) -> Meaning:
    if said & {"cancel", "stop", "delete", "clear", "off"}:
        return CancelTimers()
    if said & {"left", "how", "when"}:
        return AskTimers()
    seconds, place = 0.0, 0
    while place < len(words):
        number, after = _number(words, place)
        unit = _UNIT_OF.get(words[after]) if number is not None and after < len(words) else None
        if number is not None and unit is not None and unit.kind == "time":
            seconds += number * unit.factor
            place = after + 1
            if words[place : place + 3] == ["and", "a", "half"]:
                seconds += unit.factor / 2
        else:
            place += 1
    return SetTimer(round(seconds) or None)


def _lights(words: list[str], said: frozenset[str]) -> Meaning:
    on = "on" in said
    if said & {"which", "what", "is", "are"} or on == ("off" in said):
        return AskLights()
    return SetLights(_room(words), on)


def _room(words: list[str]) -> str | None:
    text = f" {' '.join(words)} "
    return next((room for room in ROOMS if f" {room} " in text), None)


def _amount(words: list[str]) -> tuple[float, Unit] | None:
    """The first number that a unit follows, and that unit."""
    for place in range(len(words)):
        number, after = _number(words, place)
        if number is None:
            continue
        while after < len(words) and words[after] in ("degree", "degrees", "of"):
            after += 1
        if after < len(words) and words[after] in _UNIT_OF:
            return number, _UNIT_OF[words[after]]
    return None


def _number(words: list[str], place: int) -> tuple[float | None, int]:
    """The number that begins there, and where it ends."""
    value, after = _small_number(words, place)
    if value is None or words[place] not in _VALUE or words[after : after + 1] != ["hundred"]:
        return value, after
    rest, end = _small_number(words, after + 1)
    return (100 * value + rest, end) if rest is not None and rest < 100 else (100 * value, after + 1)


def _small_number(words: list[str], place: int) -> tuple[float | None, int]:
    """One without hundreds, or in digits; none behind the last word."""
    word = words[place] if place < len(words) else ""
    if word[:1].isdigit():
        value = float(word.replace(",", "."))
        return (value, place + 1) if value <= MAX_NUMBER else (None, place)
    if word == "half":
        after = place + 1
        return 0.5, after + (words[after : after + 1] in (["a"], ["an"]))
    if word not in _VALUE:
        return None, place
    value = float(_VALUE[word])
    place += 1
    if word in TENS and place < len(words) and words[place] in ONES:
        value += _VALUE[words[place]]
        place += 1
    if words[place : place + 3] == ["and", "a", "half"]:
        return value + 0.5, place + 3
    return value, place
