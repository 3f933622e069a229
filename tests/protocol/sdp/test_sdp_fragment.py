"""Fragments of descriptions about ICE alone: what a client trickles and restarts with (RFC 8840, RFC 9725 §4.3)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import DecodeError
from protocol.ice import Candidate, IceCredentials
from protocol.sdp import OfferRefused, parse_fragment_untrusted, write_fragment

TRICKLE = """a=ice-options:trickle ice2
a=group:BUNDLE 0 1
m=audio 9 UDP/TLS/RTP/SAVPF 111
a=mid:0
a=ice-ufrag:ysXw
a=ice-pwd:vw5LmwG4y/e6dPP/zAP9Gp5k
a=candidate:1 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag ysXw network-id 1
a=candidate:2 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active generation 0
a=candidate:3 1 udp 2122194687 a3b1.local 61765 typ host
a=candidate:4 2 udp 2122194686 198.51.100.2 61766 typ host
a=end-of-candidates
"""
OURS = IceCredentials("t" * 48, "p" * 32)
HOST = Candidate("1", 1, "udp", 2130706431, "203.0.113.7", 3478, "host")


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_trk1_a_fragment_gives_its_credentials_and_the_candidates_that_can_be_used(ending: str) -> None:
    fragment = parse_fragment_untrusted(TRICKLE.replace("\n", ending).encode())
    assert fragment.ice == IceCredentials("ysXw", "vw5LmwG4y/e6dPP/zAP9Gp5k")
    assert [candidate.address for candidate in fragment.candidates] == ["192.0.2.1"]
    assert fragment.end_of_candidates
    assert fragment.trickle
    assert fragment.bundle == "BUNDLE 0 1"


def test_trk1_credentials_may_stand_in_the_session_part_or_in_every_section_or_nowhere() -> None:
    at_session = "a=ice-ufrag:ysXw\na=ice-pwd:vw5LmwG4y/e6dPP/zAP9Gp5k\nm=audio 9 RTP/AVP 0\na=mid:1\n"
    assert parse_fragment_untrusted(at_session).ice == parse_fragment_untrusted(TRICKLE).ice
    twice = TRICKLE + TRICKLE.partition("BUNDLE 0 1\n")[2]
    assert parse_fragment_untrusted(twice).ice == parse_fragment_untrusted(TRICKLE).ice
    assert parse_fragment_untrusted("a=end-of-candidates\n").ice is None


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("a=ice-pwd:vw5LmwG4y/e6dPP/zAP9Gp5k\n", ""), "invalid_ice_credentials"),
        (("a=ice-ufrag:ysXw\n", ""), "invalid_ice_credentials"),
        (("a=ice-ufrag:ysXw\n", "a=ice-ufrag:ysXw\na=ice-ufrag:other\n"), "invalid_ice_credentials"),
        (("ice-ufrag:ysXw", "ice-ufrag:y"), "invalid_ice_credentials"),
        (("ice-pwd:vw", "ice-pwd:-"), "invalid_ice_credentials"),
        (("a=end-of-candidates\n", "a=candidate:x\n" * 100), "too_many_candidates"),
        (("m=audio 9 UDP", "m=audio nine UDP"), "not_sdp"),
        (("a=mid:0", "mid 0"), "not_sdp"),
        (("a=mid:0\n", "m=audio 9 RTP/AVP 0\n" * 17), "too_many_media_sections"),
        (("a=mid:0\n", "a=mid:0\n" * 2100), "sdp_too_long"),
    ],
)
def test_w2_a_broken_fragment_is_refused_with_its_code(change: tuple[str, str], code: str) -> None:
    with pytest.raises(OfferRefused) as refused:
        parse_fragment_untrusted(TRICKLE.replace(*change))
    assert refused.value.code == code


def test_w2_our_half_of_a_restart_repeats_the_place_and_gives_all_we_have() -> None:
    request = parse_fragment_untrusted(TRICKLE)
    assert write_fragment(request, OURS, (HOST,)).split("\r\n") == [
        "a=ice-lite",
        "a=ice-options:trickle",
        "a=group:BUNDLE 0 1",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111",
        "a=mid:0",
        f"a=ice-ufrag:{OURS.ufrag}",
        f"a=ice-pwd:{OURS.pwd}",
        f"a=candidate:{HOST.serialize()}",
        "a=end-of-candidates",
        "",
    ]


def test_w2_without_a_section_to_repeat_a_pseudo_one_carries_our_candidates() -> None:
    written = write_fragment(parse_fragment_untrusted("a=ice-ufrag:ysXw\na=ice-pwd:" + "p" * 22), OURS, (HOST,))
    assert written.startswith("a=ice-lite\r\nm=audio 9 RTP/AVP 0\r\na=ice-ufrag:")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    lines=st.lists(
        st.one_of(st.sampled_from([*TRICKLE.splitlines(), "", "m=", "a=candidate:", "a=mid:\t"]), st.text(max_size=20)),
        max_size=14,
    )
)
def test_any_lines_are_a_fragment_whose_answer_can_be_read_or_are_refused(lines: list[str]) -> None:
    try:
        fragment = parse_fragment_untrusted("\n".join(lines))
    except DecodeError:
        return
    answered = parse_fragment_untrusted(write_fragment(fragment, OURS, (HOST,)))
    assert (answered.ice, answered.candidates, answered.end_of_candidates) == (OURS, (HOST,), True)
    assert (answered.bundle, answered.trickle) == (fragment.bundle, fragment.trickle)
