"""When a server is asked again."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.openai_http.retry import Retries, retry_after_untrusted
from protocol.errors import DecodeError


def waits(retries: Retries, now: float = 0.0) -> list[float]:
    found = []
    while (wait := retries.wait(now)) is not None:
        found.append(wait)
        now += wait
    return found


def test_each_wait_is_about_twice_the_one_before_up_to_a_bound():
    found = waits(Retries(10, 1000.0, 0.0, random.Random(1).randbytes))
    assert len(found) == 9
    for wait, longest in zip(found, [0.25, 0.5, 1, 2, 4, 4, 4, 4, 4], strict=True):
        assert longest / 2 <= wait <= longest


def test_callers_of_one_server_do_not_come_back_in_one_moment():
    first = {Retries(2, 10.0, 0.0, random.Random(seed).randbytes).wait(0.0) for seed in range(50)}
    assert len(first) > 25


def test_it_ends_with_the_tries_and_with_the_time():
    entropy = random.Random(1).randbytes
    assert waits(Retries(1, 100.0, 0.0, entropy)) == []
    late = Retries(10, 5.0, 100.0, entropy)
    assert late.wait(104.0) is not None
    assert late.wait(104.9) is None


def test_a_server_that_says_when_is_asked_then_and_not_at_all_if_that_is_too_late():
    retries = Retries(5, 10.0, 0.0, random.Random(1).randbytes)
    assert retries.wait(0.0, retry_after=3.0) == 3.0
    assert retries.wait(3.0, retry_after=0.0) == pytest.approx(0.4, abs=0.15)
    assert retries.wait(4.0, retry_after=7.0) is None


def test_retry_after_is_a_number_or_a_date_by_the_servers_own_clock():
    date = "Wed, 21 Oct 2026 07:28:00 GMT"
    assert retry_after_untrusted(" 120 ", None) == 120.0
    assert retry_after_untrusted("Wed, 21 Oct 2026 07:28:30 GMT", date) == 30.0
    assert retry_after_untrusted("Wed, 21 Oct 2026 07:27:30 GMT", date) == 0.0


@pytest.mark.parametrize(
    ("value", "date"),
    [("soon", None), ("Wed, 21 Oct 2026 07:28:30 GMT", None), ("-1", "x"), ("9" * 10, None), ("²", None)],
)
def test_what_is_no_retry_after_is_refused(value: str, date: str | None):
    with pytest.raises(DecodeError):
        retry_after_untrusted(value, date)


@given(st.text(max_size=60), st.text(max_size=60) | st.none())
def test_any_text_is_a_number_of_seconds_or_refused(value: str, date: str | None):
    with suppress(DecodeError):
        assert retry_after_untrusted(value, date) >= 0
