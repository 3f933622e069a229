"""The controllers of a call between its agent and their WebSockets, without either."""

from __future__ import annotations

from collections import Counter

from protocol.agentlink import FIRST_CONTROLLER, LAST_CHANNEL
from transceiver.media import Played
from transceiver.session.controllers import (
    MAX_CONTROLLERS,
    MAX_EARLY_BYTES,
    MAX_WAITING_BYTES,
    MESSAGE_OVERHEAD,
    TOO_SLOW,
    Controllers,
)


class Agent:
    """An attachment that keeps what it is told."""

    takes_controllers = True

    def __init__(self) -> None:
        self.has_room = True
        self.told: list[tuple[object, ...]] = []

    def audio_waits(self) -> None: ...

    def channel_opened(self, channel: int, label: str, protocol: str) -> None:
        self.told.append(("opened", channel))

    def channel_closed(self, channel: int) -> None:
        self.told.append(("closed", channel))

    def channel_blocked(self, channel: int) -> None: ...

    def channel_writable(self, channel: int) -> None: ...

    def message(self, channel: int, data: str | bytes) -> None:
        self.told.append((channel, data))

    def played(self, played: Played) -> None: ...

    def digit(self, digit: str) -> None: ...

    def end(self, reason: str) -> None: ...


def test_what_is_said_before_an_agent_is_there_waits_for_it_within_bounds():
    drops: Counter[str] = Counter()
    controllers = Controllers(drops)
    one, other = controllers.add(), controllers.add()
    assert one is not None
    assert other is not None
    one.say("early")
    other.say("from one who left")
    other.leave()
    one.say(b"x" * MAX_EARLY_BYTES)
    assert drops == {"controller_too_early": 1}
    agent = Agent()
    controllers.attach(agent)
    assert agent.told == [("opened", one.number), (one.number, "early")]
    one.say("late")
    assert agent.told[-1] == (one.number, "late")


def test_another_agent_is_introduced_to_all_that_are_there():
    controllers = Controllers(Counter())
    first, second = Agent(), Agent()
    controllers.attach(first)
    one, other = controllers.add(), controllers.add()
    assert one is not None
    assert other is not None
    controllers.detach()
    one.say("is anybody there?")
    controllers.attach(second)
    assert second.told == [("opened", one.number), ("opened", other.number), (one.number, "is anybody there?")]
    one.leave()
    one.leave()
    assert second.told[-1] == ("closed", one.number)
    assert second.told.count(("closed", one.number)) == 1


def test_what_the_agent_says_waits_until_it_is_taken_and_beyond_the_bound_the_controller_is_cut():
    drops: Counter[str] = Counter()
    controllers = Controllers(drops)
    agent = Agent()
    controllers.attach(agent)
    slow, quick = controllers.add(), controllers.add()
    assert slow is not None
    assert quick is not None
    news = []
    slow.on_news = lambda: news.append(slow.closed)
    message = "x" * (MAX_WAITING_BYTES // 4 - MESSAGE_OVERHEAD)
    for _ in range(4):
        for controller in (slow, quick):
            controllers.send(controller.number, message)
        assert quick.take() == message
        assert quick.take() is None
    assert news == [None] * 4
    controllers.send(slow.number, "the last straw")
    assert slow.is_cut
    assert news[-1] == TOO_SLOW
    assert drops == {"controller_slow": 1}
    assert agent.told[-1] == ("closed", slow.number)
    slow.say("unheard")
    controllers.send(slow.number, "unheard too")
    assert drops["unknown_controller"] == 1
    assert len(controllers) == 1
    assert agent.told[-1] == ("closed", slow.number)


def test_an_end_is_told_after_what_was_said_before():
    controllers = Controllers(Counter())
    controller = controllers.add()
    assert controller is not None
    controllers.send(controller.number, "goodbye")
    controllers.close("hangup")
    assert (controller.take(), controller.take(), controller.closed) == ("goodbye", None, "hangup")
    assert not controller.is_cut
    controllers.close("another reason")
    assert controller.closed == "hangup"


def test_numbers_are_given_out_again_only_after_all_others():
    controllers = Controllers(Counter())
    stays = controllers.add()
    assert stays is not None
    assert stays.number == FIRST_CONTROLLER
    seen = set()
    for _ in range(LAST_CHANNEL - FIRST_CONTROLLER):
        controller = controllers.add()
        assert controller is not None
        seen.add(controller.number)
        controller.leave()
    assert seen == set(range(FIRST_CONTROLLER + 1, LAST_CHANNEL + 1))
    again = controllers.add()
    assert again is not None
    assert again.number == FIRST_CONTROLLER + 1


def test_there_are_so_many_at_most_and_each_knows_whether_the_agent_takes_more():
    controllers = Controllers(Counter())
    agent = Agent()
    present = [controllers.add() for _ in range(MAX_CONTROLLERS)]
    assert None not in present
    assert controllers.add() is None
    first = present[0]
    assert first is not None
    assert first.may_speak
    controllers.attach(agent)
    agent.has_room = False
    assert not first.may_speak
    first.leave()
    assert controllers.add() is not None
