"""What repairs losses, as offer and answer settle it: NACK, redundant audio, transport-wide feedback."""

from __future__ import annotations

from dataclasses import replace

import pytest

from protocol.sdp import answer, create_offer, parse_untrusted, read_answer, read_offer


@pytest.fixture
def offer(parts) -> str:
    return parts["session"] + repairable(parts["audio"])


def repairable(audio: str) -> str:
    return audio.replace(" 111 ", " 111 63 ").replace(
        "a=rtpmap:126",
        "a=rtpmap:63 red/48000/2\na=fmtp:63 111/111\na=rtcp-fb:111 transport-cc\na=rtcp-fb:* nack\n"
        "a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\na=rtpmap:126",
    )


def m_line(sdp: str) -> str:
    return next(line for line in sdp.splitlines() if line.startswith("m=audio"))


@pytest.mark.parametrize(
    ("red", "formats"), [("decline", "111 126"), ("accept", "111 63 126"), ("prefer", "63 111 126")]
)
def test_redundant_audio_stands_where_our_side_wants_it(respond, capabilities, offer, red: str, formats: str):
    answered = respond(offer, replace(capabilities, red=red))
    assert m_line(answered.sdp).endswith(f"SAVPF {formats}")
    assert ("a=fmtp:63 111/111" in answered.sdp) == (red != "decline")
    assert answered.audio.red_payload_type == (None if red == "decline" else 63)
    assert answered.audio.payload_type == 111


@pytest.mark.parametrize("spoilt", ["a=fmtp:63 111/0", "a=fmtp:63 0/0", "a=fmtp:64 111/111", "a=fmtp:63 x"])
def test_redundancy_of_anything_but_the_codec_is_not_taken(respond, capabilities, offer, spoilt: str):
    offer = offer.replace("a=fmtp:63 111/111", spoilt)
    assert respond(offer, replace(capabilities, red="accept")).audio.red_payload_type is None


def test_feedback_is_agreed_on_only_when_both_sides_want_it(respond, capabilities, offer, parts):
    both = replace(capabilities, nack=True, transport_cc=True)
    answered = respond(offer, both)
    assert (answered.audio.nack, answered.audio.transport_cc_id) == (True, 3)
    for line in ("a=rtcp-fb:111 nack", "a=rtcp-fb:111 transport-cc", "a=extmap:3 http://www.ietf.org/id/draft-holmer"):
        assert line in answered.sdp
    for silent in (respond(offer), respond(parts["session"] + parts["audio"], both)):
        assert (silent.audio.nack, silent.audio.transport_cc_id) == (False, None)
        assert "rtcp-fb" not in silent.sdp
        assert "extmap" not in silent.sdp
    without_feedback = offer.replace("a=rtcp-fb:111 transport-cc\n", "")
    assert respond(without_feedback, both).audio.transport_cc_id is None


def test_our_own_offer_and_its_answer_agree_on_repair(capabilities):
    for red in ("accept", "prefer"):
        offering = replace(capabilities, nack=True, transport_cc=True, red=red, ice_lite=False)
        answered = answer(read_offer(parse_untrusted(create_offer(offering))), replace(offering, ice_lite=True))
        settled = read_answer(parse_untrusted(answered.sdp), offering)
        assert settled.audio is not None
        assert settled.audio == replace(answered.audio, red_first=red == "prefer", extensions=settled.audio.extensions)
        assert (settled.audio.nack, settled.audio.transport_cc_id, settled.audio.red_payload_type) == (True, 3, 63)
