"""Key presses (RFC 4733): one event of each press, whatever is lost, doubled or late."""

from __future__ import annotations

import itertools
import random
import struct

import pytest

from protocol.codecs import KeyPresses
from protocol.codecs.telephone_event import DIGITS

Packet = tuple[bytes, int]


def press(digit: str, start: int, *, milliseconds: int = 100, rate: int = 48_000) -> list[Packet]:
    """A report every 20 ms, the last one three times (RFC 4733 §2.5.1.4)."""
    event, tick = DIGITS.index(digit), rate // 50
    reports = [(False, tick * n) for n in range(1, milliseconds // 20)] + [(True, tick * (milliseconds // 20))] * 3
    return [(struct.pack("!BBH", event, end << 7 | 10, length), start & 0xFFFFFFFF) for end, length in reports]


def heard(packets: list[Packet], presses: KeyPresses | None = None) -> str:
    presses = presses or KeyPresses()
    events = [presses.detect_untrusted(*packet) for packet in packets]
    return "".join(event.digit or "?" for event in events if event is not None)


def dial(digits: str, start: int = 0) -> list[Packet]:
    return [packet for n, digit in enumerate(digits) for packet in press(digit, start + n * 9600)]


@pytest.mark.parametrize("start", [0, 12_345, 0xFFFF_F000])
def test_each_press_is_told_once_and_two_of_one_key_are_two(start: int):
    assert heard(dial("0123456789*#ABCD", start)) == "0123456789*#ABCD"
    assert heard(dial("1122", start)) == "1122"


def test_a_press_is_told_with_its_first_packet():
    presses = KeyPresses()
    first, *rest = press("5", 4800)
    event = presses.detect_untrusted(*first)
    assert event is not None
    assert (event.digit, event.end, event.duration) == ("5", False, 960)
    assert [presses.detect_untrusted(*packet) for packet in rest] == [None] * len(rest)


def test_any_one_packet_of_a_press_is_enough():
    for kept in range(7):
        assert heard([press("7", 0)[kept], *press("8", 9600)]) == "78"


def test_packets_doubled_and_late_tell_nothing_twice():
    chance = random.Random(4733)
    for _ in range(50):
        packets = dial("159#")
        order = sorted(range(len(packets)), key=lambda n: n + chance.uniform(0, 4))
        shuffled = [packets[n] for n in order for _ in range(chance.choice([1, 1, 2]))]
        assert heard(shuffled) == "159#"


def test_a_press_longer_than_its_duration_field_is_still_one():
    first = [(struct.pack("!BBH", 3, 10, length), 1000) for length in range(960, 0xFFFF, 960)]
    first.append((struct.pack("!BBH", 3, 10, 0xFFFF), 1000))
    second = [(struct.pack("!BBH", 3, 10, length), 1000 + 0xFFFF) for length in (960, 1920)]
    assert heard([*first, *second]) == "3"


def test_presses_far_apart_are_all_told_through_wraps_of_the_timestamp():
    packets = list(itertools.chain.from_iterable(press("1", n * 0x7000_0000) for n in range(20)))
    assert heard(packets) == "1" * 20
