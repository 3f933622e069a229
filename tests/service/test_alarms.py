"""Drops that come in numbers are said in the log, rarely."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
from trio.testing import MockClock

from relay.service import ALARMING as RELAY_ALARMING
from service import alarms
from service.alarms import ALARM_SECONDS, MANY, DropAlarm, watch_drops
from transceiver.server import ALARMING as TRANSCEIVER_ALARMING


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, int]] = []

    def warning(self, _event: str, *, reason: str, count: int, seconds: float, why: str) -> None:
        assert seconds == ALARM_SECONDS
        assert why
        self.lines.append((reason, count))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    log = Log()
    monkeypatch.setattr(alarms, "log", log)
    return log.lines


def test_what_was_dropped_since_the_last_look_is_said_with_its_number_and_a_few_are_not(said: list[tuple[str, int]]):
    drops: Counter[str] = Counter({"trunk_forged": MANY, "no_flow": 1000})
    alarm = DropAlarm(drops, TRANSCEIVER_ALARMING)
    alarm.look()
    drops["trunk_forged"] += MANY - 1
    alarm.look()
    drops["trunk_forged"] += 50_000
    alarm.look()
    alarm.look()
    assert said == [("trunk_forged", MANY), ("trunk_forged", 50_000)]


async def test_a_flood_is_one_line_in_ten_seconds(said: list[tuple[str, int]], autojump_clock: MockClock):
    drops: Counter[str] = Counter()
    with trio.move_on_after(3.5 * ALARM_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_drops, drops, RELAY_ALARMING)
            while True:
                drops["token_forged"] += 1000
                await trio.sleep(0.5)
    assert [reason for reason, _ in said] == ["token_forged"] * 3
    assert sum(count for _, count in said) == pytest.approx(60_000, abs=1000)
