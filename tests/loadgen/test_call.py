"""A whole call against an echo in virtual time: how it is set up, what it counts, how it ends."""

from __future__ import annotations

import pytest

from loadgen.frames import FrameMark, make_frame
from protocol.address import pack_address

MEDIA = range(128, 192)


def is_media(data: bytes) -> bool:
    return data[0] in MEDIA


def test_a_call_is_set_up_and_every_frame_and_message_comes_back(world):
    call = world.call
    assert list(call.reached) == ["start", "signalling", "ice", "dtls", "audio", "channel"]
    assert call.srtp_profile == 7
    world.run_for(3.0)
    call.stop_talking(world.now)
    world.run_for(0.2)
    assert call.failure is None
    assert call.is_answered
    assert call.audio.received == call.audio.sent >= 150
    assert (call.audio.early, call.audio.late, call.audio.corrupt, call.audio.duplicated) == (0, 0, 0, 0)
    assert call.data.received == call.data.sent >= 3
    assert call.audio.longest_gap == pytest.approx(0.020, abs=0.002)
    assert world.figures.frame_round_trips.percentile(0.5) == pytest.approx(0.020, abs=0.0002)


def test_frames_from_before_the_agent_was_there_are_early_and_not_lost(new_world):
    world = new_world()
    world.server.listening = False
    world.dial()
    world.run_until(lambda: world.call.audio.sent == 10)
    assert not world.call.is_ready
    assert world.call.missing_stage == "audio"
    world.server.listening = True
    world.run_until(lambda: world.call.is_ready)
    world.call.stop_talking(world.now)
    world.run_for(0.2)
    assert world.call.audio.early == pytest.approx(10, abs=1)
    assert world.call.audio.missing == 0


def test_an_outage_shows_as_lost_frames_and_as_the_longest_gap(world):
    world.run_for(0.5)
    world.pass_up = lambda data: not is_media(data)
    world.run_for(0.4)
    world.pass_up = lambda data: True
    world.run_for(0.5)
    world.call.stop_talking(world.now)
    world.run_for(0.2)
    assert world.call.audio.missing == 20
    assert world.call.audio.longest_gap == pytest.approx(0.42, abs=0.01)


def test_an_outage_that_does_not_end_is_a_gap_up_to_the_last_frame_we_sent(world):
    world.run_for(0.5)
    world.pass_down = lambda data: not is_media(data)
    world.run_for(1.0)
    world.call.stop_talking(world.now)
    assert world.call.audio.longest_gap == pytest.approx(1.0, abs=0.03)
    world.run_for(0.2)
    assert world.call.audio.missing >= 50


def test_frames_of_another_call_changed_frames_and_doubled_ones_are_told_apart(world):
    before = world.call.audio.received
    foreign = make_frame(FrameMark(b"run1", world.call.number + 1, 0, 0))
    world.server.echo = lambda payload: [foreign]
    world.run_for(0.1)
    world.server.echo = lambda payload: [payload[:-1] + bytes((payload[-1] ^ 1,))]
    world.run_for(0.1)
    world.server.echo = lambda payload: [payload, payload]
    world.run_for(0.1)
    audio = world.call.audio
    assert audio.foreign == pytest.approx(5, abs=1)
    assert audio.corrupt == pytest.approx(5, abs=1)
    assert audio.duplicated == pytest.approx(5, abs=1)
    assert audio.received == pytest.approx(before + 5, abs=2)


def test_an_answer_to_a_frame_that_was_never_sent_is_corrupt(world):
    ahead = make_frame(FrameMark(b"run1", world.call.number, 1_000_000, 0))
    world.server.echo = lambda payload: [ahead]
    world.run_for(0.2)
    assert world.call.audio.corrupt > 0


def test_what_comes_back_after_200_ms_is_late_and_not_lost(world):
    held: list[bytes] = []

    def hold(payload: bytes) -> list[bytes]:
        held.append(payload)
        return held[-16:-15]  # 300 ms later

    world.server.echo = hold
    world.run_for(1.0)
    assert world.call.audio.late >= 30
    assert world.call.audio.corrupt == 0


def test_every_candidate_of_the_answer_is_tried(new_world, candidate):
    world = new_world(
        candidates=(candidate("203.0.113.1", 1), candidate("2001:db8::1", 2), candidate("192.0.2.10", 3478))
    )
    world.dial()
    world.run_until(lambda: world.call.is_ready)
    tried = {pack_address("203.0.113.1", 1), pack_address("2001:db8::1", 2), pack_address("192.0.2.10", 3478)}
    assert world.destinations == tried


def test_a_server_that_nobody_reaches_leaves_the_call_without_ice(new_world):
    world = new_world()
    world.pass_up = lambda data: False
    world.dial()
    world.run_for(5.0)
    assert world.call.missing_stage == "ice"
    world.run_for(30.0)
    assert world.call.failure == "no_valid_path"


def test_another_certificate_than_the_one_in_the_answer_ends_the_call(new_world):
    world = new_world()
    lines = world.server.answer.split("\r\n")
    forged = [f"a=fingerprint:sha-256 {':'.join(['AB'] * 32)}" if "fingerprint" in line else line for line in lines]
    world.server.answer = "\r\n".join(forged)
    world.dial()
    world.run_until(lambda: world.call.is_over)
    assert world.call.failure == "fingerprint_mismatch"
    assert world.server.frames == 0


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"", "answer_"), (b"<html>", "answer_"), (b"v=0\r\n", "answer_"), (b"\xff" * 40, "answer_")],
)
def test_an_answer_that_is_none_is_the_reason_of_the_failure(new_world, body: bytes, reason: str):
    call = new_world().call
    call.answered(body, 100.0)
    assert call.failure is not None
    assert call.failure.startswith(reason)
    assert call.take_datagrams() == []


def test_a_server_that_ends_the_call_is_a_failure_with_the_servers_word_for_it(world):
    world.run_for(0.1)
    word = '{"type":"antiphon.call.ended","reason":"agent_ended"}'
    world.server.peer.send_message(world.server.channel, word, world.now)
    world.run_for(0.1)
    world.server.peer.close(world.now)
    world.run_for(0.1)
    assert world.call.ended
    assert world.call.failure == "ended_agent_ended"


def test_after_the_hang_up_the_servers_goodbye_is_no_failure(world):
    world.call.stop_talking(world.now)
    world.call.hung_up = True
    world.server.peer.close(world.now)
    world.run_for(0.1)
    assert world.call.ended
    assert world.call.failure is None


def test_a_call_without_consent_holds_its_frames_back(world):
    world.pass_down = lambda data: False
    world.run_for(16.0)
    assert world.call.audio.held > 0
    assert world.call.failure is None
    world.pass_down = lambda data: True
    received = world.call.audio.received
    world.run_for(7.0)
    assert world.call.audio.received > received


def test_a_closed_call_says_goodbye_once_and_is_silent(world):
    world.call.close(world.now)
    assert world.call.take_datagrams()
    world.call.handle_timeout(world.now + 60)
    world.call.tick(99_999, 0.0, world.now + 60)
    assert world.call.take_datagrams() == []
    assert world.call.next_timeout() == float("inf")


def test_the_counts_of_an_agent_that_meters_are_no_echo(world):
    world.run_for(0.1)
    word = '{"type":"meter.slots","expected":50,"in_time":49,"recovered":1,"by_copy":0,"late":1}'
    world.server.peer.send_message(world.server.channel, word, world.now)
    world.run_for(0.1)
    assert world.call.slots == {"expected": 50, "in_time": 49, "recovered": 1, "by_copy": 0, "late": 1}
    assert world.call.data.corrupt == 0


def test_a_frame_that_the_other_side_asks_for_is_sent_again(world):
    world.run_for(0.3)
    lost: list[bytes] = []

    def lose_one_frame(data: bytes) -> bool:
        if lost or not is_media(data) or 192 <= data[1] <= 223:  # RTCP, by RFC 5761 §4
            return True
        lost.append(data)
        return False

    world.pass_up = lose_one_frame
    world.run_for(0.1)
    sequence, ssrc = int.from_bytes(lost[0][2:4], "big"), int.from_bytes(lost[0][8:12], "big")
    received = world.call.audio.received
    world.server.peer.request_audio(ssrc, (sequence,))
    world.run_for(0.1)
    world.call.stop_talking(world.now)
    world.run_for(0.2)
    assert world.call.audio.received > received
    assert world.call.audio.missing == 0
