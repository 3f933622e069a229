"""Server-sent events: every stream, however it is cut, and the bounds."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.openai_http.sse import MAX_EVENT_BYTES, MAX_LINE_BYTES, ServerSentEvent, SseParser
from protocol.errors import DecodeError

STREAM = (
    "\ufeff: hello\r\ndata: one\r\n\r\n"
    "event: error\ndata:two\ndata: three\nid: 7\nretry: 10\n\n\n"
    "data\rdata:  é\r\rdata: cut off"
).encode()
EVENTS = [ServerSentEvent("", "one"), ServerSentEvent("error", "two\nthree"), ServerSentEvent("", "\n é")]


def feed(*pieces: bytes) -> list[ServerSentEvent]:
    parser = SseParser()
    return [event for piece in pieces for event in parser.feed_untrusted(piece)]


def test_a_stream_is_read_whole_and_byte_by_byte_as_the_same_events():
    assert feed(STREAM) == EVENTS
    assert feed(*(STREAM[at : at + 1] for at in range(len(STREAM)))) == EVENTS


@pytest.mark.slow
@given(st.lists(st.integers(0, len(STREAM))))
def test_where_a_stream_is_cut_does_not_matter(cuts: list[int]):
    places = [0, *sorted(cuts), len(STREAM)]
    assert feed(*(STREAM[start:end] for start, end in itertools.pairwise(places))) == EVENTS


@pytest.mark.slow
@given(st.lists(st.binary(max_size=200) | st.sampled_from([b"data:", b"\r", b"\n", b"event: x\n", b"data: y\n\n"])))
def test_any_bytes_in_any_cuts_give_the_same_events(pieces: list[bytes]):
    whole = b"".join(pieces)
    assert feed(*pieces) == feed(whole) == feed(*(whole[at : at + 1] for at in range(len(whole))))


def test_an_event_without_data_is_none_and_one_that_was_cut_off_was_none():
    assert feed(b"event: ping\n\n", b": comment\n\n", b"data: never ended\n") == []


def test_bytes_that_are_no_text_are_replaced():
    assert feed(b"data: \xff\n\n") == [ServerSentEvent("", "\ufffd")]


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_that_is_too_long_is_refused_before_and_when_it_ends(end: bytes):
    with pytest.raises(DecodeError, match="sse_line_too_long"):
        feed(b"data: " + b"x" * MAX_LINE_BYTES + end)


def test_an_event_that_is_too_long_is_refused():
    line = b"data: " + b"x" * (MAX_LINE_BYTES // 2) + b"\n"
    with pytest.raises(DecodeError, match="sse_event_too_long"):
        feed(*[line] * (2 * MAX_EVENT_BYTES // MAX_LINE_BYTES + 1))


def test_a_stream_of_events_has_no_bound():
    line = b"data: " + b"x" * 1000 + b"\n\n"
    assert len(feed(*[line * 10] * 1000)) == 10_000
