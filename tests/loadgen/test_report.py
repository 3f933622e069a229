"""The arithmetic of the report: percentiles, tallies, verdicts, and what the command line refuses."""

from __future__ import annotations

import io
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from agent.codecs import open_decoder
from agent.codecs.opus import find_opus
from loadgen.distribution import Histogram, percentile
from loadgen.driver import Driver
from loadgen.frames import MARK_LENGTH, PLAIN, PROTECTED, FrameMark, make_frame, read_frame_untrusted
from loadgen.options import parse_options
from loadgen.report import render, summarize
from loadgen.scenario import Run
from loadgen.tally import REMEMBERED, AudioTally, DataTally
from protocol.codecs import OPUS

bounded = settings(max_examples=100, deadline=None, derandomize=True)


def test_percentiles_are_by_nearest_rank():
    values = [15.0, 20.0, 35.0, 40.0, 50.0]
    assert [percentile(values, share) for share in (0.05, 0.30, 0.40, 0.50, 1.0)] == [15.0, 20.0, 20.0, 35.0, 50.0]
    assert percentile([], 0.5) is None


def test_a_histogram_agrees_with_the_exact_percentiles_to_its_step():
    drawn = random.Random(1)
    values = [drawn.expovariate(20) for _ in range(5000)]
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    for share in (0.01, 0.5, 0.95, 0.99):
        exact = percentile(values, share)
        assert exact is not None
        assert exact <= histogram.percentile(share) <= exact + 2 * Histogram.STEP
    assert histogram.percentile(1.0) == max(values)
    assert Histogram().percentile(0.5) is None


def test_a_histogram_keeps_the_maximum_of_what_lies_beyond_its_bins():
    histogram = Histogram()
    histogram.add(0.001)
    histogram.add(1750.0)
    assert histogram.percentile(1.0) == 1750.0
    assert histogram.percentile(0.5) == pytest.approx(0.0011, abs=0.0001)


def test_a_histogram_tells_seconds_and_minutes_to_half_a_percent_too():
    drawn = random.Random(2)
    values = [drawn.uniform(0.5, 500) for _ in range(3000)]
    whole, half, other = Histogram(), Histogram(), Histogram()
    for number, value in enumerate(values):
        whole.add(value)
        (half if number % 2 else other).add(value)
    half.merge(other)
    for share in (0.001, 0.1, 0.5, 0.95, 0.99):
        exact = percentile(values, share)
        assert exact is not None
        assert exact <= whole.percentile(share) <= exact * 1.0051 + Histogram.STEP
        assert half.percentile(share) == whole.percentile(share)
    assert whole.percentile(1.0) == max(values)


@bounded
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
def test_a_frame_is_an_opus_frame_of_20_ms_and_tells_its_mark(call: int, sequence: int, sent: int):
    mark = FrameMark(b"abcd", call, sequence, sent)
    for speech in (PROTECTED, PLAIN):
        frame = make_frame(mark, speech)
        assert 40 <= len(frame) <= 120
        assert OPUS.count_samples_untrusted(frame) == OPUS.frame_samples
        assert read_frame_untrusted(frame) == mark


def test_every_frame_holds_a_copy_of_the_one_before_or_none_does():
    # RFC 6716 §4.2.3: the VAD flag of the only SILK frame, then the LBRR flag; it begins behind TOC, count and padding length.
    assert [packet[3] >> 6 & 1 for packet in PROTECTED] == [1] * 40
    assert [packet[3] >> 6 & 1 for packet in PLAIN] == [0] * 40


def test_libopus_takes_every_frame_and_hears_a_voice_in_it():
    library = find_opus()
    if library is None:
        pytest.skip("libopus is not installed")
    decoder = open_decoder(OPUS)
    for speech in (PROTECTED, PLAIN):
        pcm = b"".join(decoder.decode(make_frame(FrameMark(b"abcd", 1, sequence, 5), speech)) for sequence in range(40))
        samples = memoryview(pcm).cast("h")
        assert len(samples) == 40 * 320
        assert sum(map(abs, samples)) / len(samples) > 100


@bounded
@given(st.integers(0, 5000), st.data())
def test_a_frame_that_was_changed_anywhere_is_not_taken_for_the_one_that_was_sent(sequence: int, data):
    mark = FrameMark(b"abcd", 7, sequence, 123_456_789)
    frame = bytearray(make_frame(mark))
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    assert read_frame_untrusted(bytes(frame)) is None
    assert read_frame_untrusted(bytes(frame[:-1])) is None


@bounded
@given(st.binary(max_size=200))
def test_any_payload_is_tallied_without_an_exception(payload: bytes):
    tally = AudioTally(b"abcd", 1, Histogram())
    tally.receive_untrusted(payload, 1.0)
    tally.receive_untrusted(PROTECTED[0] + payload, 1.0)
    assert tally.corrupt == 2
    assert MARK_LENGTH == 24


def test_frames_in_the_wrong_order_are_neither_lost_nor_early():
    tally = AudioTally(b"abcd", 1, Histogram())
    frames = []
    for index in range(5):
        frames.append(tally.next_frame(index * 0.02))
        tally.count_sent(0.0)
    for index in (2, 1, 4, 3):
        tally.receive_untrusted(frames[index], 0.2)
    assert (tally.sent, tally.early, tally.received, tally.missing) == (5, 1, 4, 0)


def test_of_the_frames_sent_last_each_counts_once_however_long_the_call():
    tally = AudioTally(b"abcd", 1, Histogram())
    frames = []
    for index in range(3 * REMEMBERED):
        frames.append(tally.next_frame(index * 0.02))
        tally.count_sent(0.0)
        tally.receive_untrusted(frames[-1], index * 0.02)
    assert (tally.sent, tally.early, tally.received, tally.missing) == (3 * REMEMBERED, 0, 3 * REMEMBERED, 0)
    tally.receive_untrusted(frames[-REMEMBERED], 500.0)
    assert (tally.duplicated, tally.corrupt) == (1, 0)
    tally.receive_untrusted(frames[-REMEMBERED - 1], 500.0)
    assert (tally.duplicated, tally.corrupt) == (1, 1), "so old that nobody remembers whether it came before"


def test_messages_are_matched_with_what_was_sent_and_once_only():
    tally = DataTally(1, Histogram())
    first, second = tally.next_message(), None
    tally.count_sent(first, 1.0)
    second = tally.next_message()
    tally.count_sent(second, 2.0)
    assert isinstance(first, str)
    assert isinstance(second, bytes)
    for message in (second, second, "something else", b""):
        tally.receive_untrusted(message, 2.5)
    assert (tally.sent, tally.received, tally.corrupt, len(tally.pending)) == (2, 1, 3, 1)


def summary_of(calls, options: str = "--calls 1"):
    """Of calls that have ended."""
    run = Run(parse_options(options.split()), Driver(lambda: 0.0), started_at=0.0)
    run.calls.extend(calls)
    return summarize(run)


def test_a_call_without_fault_makes_the_run_well_and_shows_its_stages(world):
    world.run_for(1.0)
    world.call.stop_talking(world.now)
    world.run_for(0.2)
    summary = summary_of([world.call])
    assert summary.ok
    assert summary.calls["succeeded"] == 1
    assert summary.setup_ms["ice"]["p50"] == pytest.approx(20.0, abs=0.2)  # one round trip of 20 ms
    assert summary.setup_ms["all"]["max"] == max(spread["max"] for spread in summary.setup_ms.values())
    assert summary.audio["longest_gap_ms"]["max"] == pytest.approx(20.0, abs=2.0)
    assert summary.security == {"SRTP_AEAD_AES_128_GCM, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": 1}


def test_loss_makes_the_run_fail_unless_it_is_allowed(world):
    world.pass_up = lambda data: data[0] not in range(128, 192)
    world.run_for(0.2)
    world.call.stop_talking(world.now)
    world.run_for(0.5)
    summary = summary_of([world.call])
    assert summary.audio["lost"] == pytest.approx(10, abs=1)
    assert not summary.ok
    assert summary_of([world.call], "--calls 1 --allow-loss").ok


def test_a_frame_of_another_call_makes_the_run_fail_even_if_loss_is_allowed(world):
    world.server.echo = lambda payload: [make_frame(FrameMark(b"run1", 99, 0, 0))]
    world.run_for(0.2)
    assert not summary_of([world.call], "--calls 1 --allow-loss").ok


def test_a_failed_call_and_one_that_was_never_placed_make_the_run_fail(world):
    world.call.fail("no_ice")
    world.call.fail("later")
    summary = summary_of([world.call], "--calls 2 --allow-loss")
    assert not summary.ok
    assert summary.calls["failures"] == {"no_ice": 1}
    assert (summary.calls["failed"], summary.calls["not_placed"]) == (2, 1)


def test_calls_that_hear_nothing_make_the_report_ask_for_an_agent_that_returns_what_it_hears(world):
    world.call.fail("no_audio")
    console = Console(file=io.StringIO(), width=80)
    for part in render(summary_of([world.call])):
        console.print(part, soft_wrap=True)
    assert "failed: 1 × no_audio" in console.file.getvalue()
    assert "`just up --agent echo` does, the parrot does not;" in console.file.getvalue()


def test_a_run_without_a_single_call_has_a_report_too():
    summary = summary_of([])
    assert summary.setup_ms["all"] == {"p50": None, "p95": None, "p99": None, "max": None}
    msgspec.json.encode(summary)
    console = Console(file=io.StringIO(), width=80)
    for part in render(summary):
        console.print(part, soft_wrap=True)


def test_the_table_says_what_the_json_says(world):
    world.run_for(0.3)
    world.call.stop_talking(world.now)
    world.run_for(0.2)
    summary = summary_of([world.call])
    console = Console(file=io.StringIO(), width=80)
    for part in render(summary):
        console.print(part, soft_wrap=True)
    text = console.file.getvalue()
    assert "longest gap of a call" in text
    assert str(summary.audio["sent"]) in text
    assert "well: 1 call, 0 failed, 0 frames and 0 messages lost" in text


@pytest.mark.parametrize(
    "arguments",
    [
        "--calls 0",
        "--calls many",
        "--seconds 0",
        "--seconds nan",
        "--rate inf",
        "--url ftp://x/",
        "--url 127.0.0.1:8080",
        "--url http://[::1",
        "--url http://x:99999/",
        "--nonsense",
        "--say hello.wav",
        "--interrupt-every 2",
        "--agent voice --find-capacity",
        "--conversation --no-fec",
        "--conversation --think 0",
    ],
)
def test_a_command_line_that_cannot_be_is_refused_with_status_2(arguments: str, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_options(arguments.split())
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_calls_converse_with_agents_that_are_known_to_speak_the_realtime_api_and_where_they_are_told_to():
    for arguments in ("--agent voice", "--agent realtime", "--url http://x/ --conversation"):
        assert parse_options(arguments.split()).conversation
    for arguments in ("", "--agent meter", "--url http://x/"):
        assert not parse_options(arguments.split()).conversation


def test_an_address_without_its_last_slash_is_the_same_address():
    assert parse_options(["--url", "http://127.0.0.1:8080"]).url == "http://127.0.0.1:8080/"
    assert parse_options([]).url is None
