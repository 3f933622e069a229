"""The rows of docs/attacks.md against the whole stack and, with the same bytes, against aiortc.

Ours must show what the row says. What aiortc does is tested too, or its column in the page would be hearsay; a new version of
it may well change an entry here, and then the page.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple

import attacks
import pytest
import trio
from attacks import Seen, Target
from targets import Aiortc, Ours, aiortc_server, our_stack

pytestmark = [pytest.mark.slow, pytest.mark.conformance, pytest.mark.xdist_group("attacks")]

MIB = 1 << 20
ANSWER_SECONDS = 0.05  # or thrice of what it took before the attack, on a machine with other things to do
GAP_SECONDS = 0.1  # the same


class Attack(NamedTuple):
    row: int
    make: Callable[[Target], Awaitable[Seen]]
    holds: Callable[[Seen], bool]
    aiortc_holds: bool


def lives(seen: Seen) -> bool:
    return seen.lives


def lives_and_tells_nobody(seen: Seen) -> bool:
    return seen.lives and seen.reached == 0


def nothing_comes_back(seen: Seen) -> bool:
    return seen.bad == 0


def answers_in_time(seen: Seen) -> bool:
    return seen.lives and seen.slowest < max(ANSWER_SECONDS, 3 * seen.usual) and seen.growth < MIB


ATTACKS = [
    Attack(1, attacks.hello_from_outside, lives_and_tells_nobody, aiortc_holds=False),
    Attack(2, attacks.bad_srtp, lives_and_tells_nobody, aiortc_holds=True),
    Attack(3, attacks.media_from_outside, lives_and_tells_nobody, aiortc_holds=True),
    Attack(4, attacks.media_first, lives_and_tells_nobody, aiortc_holds=True),
    Attack(5, attacks.media_unproven, lambda seen: seen.lives and seen.bad == 0, aiortc_holds=True),
    Attack(6, attacks.another_certificate, nothing_comes_back, aiortc_holds=True),
    Attack(6, attacks.another_certificate_again, nothing_comes_back, aiortc_holds=True),
    Attack(7, attacks.no_certificate_verify, lambda seen: seen.bad == 0 and not seen.connected, aiortc_holds=True),
    Attack(8, attacks.great_promises, answers_in_time, aiortc_holds=False),
    Attack(9, attacks.empty_fragments, answers_in_time, aiortc_holds=False),
    Attack(11, attacks.reflection, lives_and_tells_nobody, aiortc_holds=False),
    Attack(12, attacks.amplification, lives_and_tells_nobody, aiortc_holds=False),
    Attack(13, attacks.injection, lives, aiortc_holds=True),
    Attack(14, attacks.hijack, lambda seen: seen.lives and seen.successes == 0, aiortc_holds=True),
    Attack(14, attacks.copied_check, lambda seen: seen.lives and seen.successes == 0, aiortc_holds=False),
    Attack(16, attacks.last_flight_lost, lambda seen: seen.lives and seen.seconds < 5, aiortc_holds=True),
    Attack(17, attacks.shuffled, lambda seen: seen.lives and seen.bad == 0, aiortc_holds=True),
    Attack(18, attacks.rebinding, lambda seen: seen.lives and seen.seconds < 1, aiortc_holds=False),
    Attack(18, attacks.rebinding_nominating, lambda seen: seen.lives and seen.seconds < 1, aiortc_holds=True),
    Attack(
        19,
        attacks.token_flood,
        lambda seen: lives_and_tells_nobody(seen) and seen.gap < max(GAP_SECONDS, 3 * seen.usual_gap),
        aiortc_holds=False,
    ),
    Attack(21, attacks.malformed_chunks, lambda seen: seen.lives and seen.bad == 0, aiortc_holds=False),
    Attack(21, attacks.forged_cookies, lambda seen: seen.lives and seen.bad == 0, aiortc_holds=False),
    Attack(22, attacks.long_junk, lives_and_tells_nobody, aiortc_holds=False),
    Attack(22, attacks.long_junk_inside, lives, aiortc_holds=False),
    Attack(23, attacks.split_hello, lives, aiortc_holds=False),
]
LONG_ATTACKS = [Attack(15, attacks.no_consent, lambda seen: 0 < seen.seconds <= 32, aiortc_holds=True)]


@pytest.fixture(scope="module")
def ours() -> Iterator[Ours]:
    with our_stack() as target:
        yield target


@pytest.fixture(scope="module")
def aiortc() -> Iterator[Aiortc]:
    with aiortc_server() as target:
        yield target


def name(attack: Attack) -> str:
    return f"{attack.row} {attack.make.__name__.replace('_', ' ')}"


async def what_is_seen(attack: Attack, target: Target) -> Seen:
    with trio.fail_after(60):
        seen = await attack.make(target)
    print(f"\nrow {name(attack)}: {seen}")
    return seen


@pytest.mark.parametrize("attack", ATTACKS, ids=name)
async def test_the_attack_has_no_effect_on_the_stack(attack: Attack, ours: Ours) -> None:
    assert attack.holds(await what_is_seen(attack, ours))


@pytest.mark.soak  # most of it is waiting for what never comes
@pytest.mark.parametrize("attack", ATTACKS, ids=name)
async def test_what_the_attack_does_to_aiortc_is_what_the_page_says(attack: Attack, aiortc: Aiortc) -> None:
    assert attack.holds(await what_is_seen(attack, aiortc)) is attack.aiortc_holds


@pytest.mark.soak
@pytest.mark.parametrize("attack", LONG_ATTACKS, ids=name)
async def test_the_long_attack_has_no_effect_on_the_stack(attack: Attack, ours: Ours) -> None:
    assert attack.holds(await what_is_seen(attack, ours))


@pytest.mark.soak
@pytest.mark.parametrize("attack", LONG_ATTACKS, ids=name)
async def test_what_the_long_attack_does_to_aiortc_is_what_the_page_says(attack: Attack, aiortc: Aiortc) -> None:
    assert attack.holds(await what_is_seen(attack, aiortc)) is attack.aiortc_holds
