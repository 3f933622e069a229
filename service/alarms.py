"""What a log must say of drops that come in numbers, by one warning in ten seconds at most; never on a packet's way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import trio

from service.logs import get_logger

__all__ = ["ALARM_SECONDS", "DropAlarm", "watch_drops"]

# Implementation constants
ALARM_SECONDS = 10.0  # between two looks
MANY = 3  # drops of one reason between them: a single call that cannot get through makes as many

log = get_logger()


class DropAlarm:
    """`meanings`: reason → what to look at. Who owns the counters calls `look` every ALARM_SECONDS."""

    def __init__(self, drops: Mapping[str, int], meanings: Mapping[str, str]) -> None:
        self._drops = drops
        self._meanings = meanings
        self._seen = dict.fromkeys(meanings, 0)

    def look(self) -> None:
        for reason, meaning in self._meanings.items():
            count = self._drops.get(reason, 0)
            new, self._seen[reason] = count - self._seen[reason], count
            if new >= MANY:
                log.warning("datagrams are dropped", reason=reason, count=new, seconds=ALARM_SECONDS, why=meaning)


async def watch_drops(drops: Mapping[str, int], meanings: Mapping[str, str]) -> NoReturn:
    """Until cancelled."""
    alarm = DropAlarm(drops, meanings)
    while True:
        await trio.sleep(ALARM_SECONDS)
        alarm.look()
