"""Candidates and credentials as SDP carries them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.address import pack_address
from protocol.errors import DecodeError
from protocol.ice import Candidate, IceCredentials, candidate_priority

USABLE = "1 1 udp 2130706431 192.0.2.7 50000 typ host"


@pytest.mark.parametrize(
    ("line", "usable"),
    [
        (USABLE, True),
        (
            "842163049 1 UDP 1677729535 2001:db8::7 9 typ srflx raddr 0.0.0.0 rport 0 generation 0 network-cost 999",
            True,
        ),
        ("1 1 udp 1 10.0.0.1 5000 typ future", False),
        ("0 1 UDP 2122187007 4f2f1b9c-3a1b.local 40118 typ host", False),
        ("0 1 udp 2122187007 host.example.org 40118 typ host", False),
        ("3 1 TCP 2105458943 192.0.2.7 9 typ host tcptype active", False),
        ("1 2 udp 2130706430 192.0.2.7 50001 typ host", False),
        ("1 1 udp 2130706431 192.0.2.7 0 typ host", False),
        ("1 1 udp 2130706431 0.0.0.0 50000 typ host", False),
        ("1 1 udp 2130706431 239.1.2.3 50000 typ host", False),
    ],
)
def test_p4_candidates_of_every_kind_parse_and_write_back_and_say_whether_we_can_use_them(
    line: str, usable: bool
) -> None:
    candidate = Candidate.parse_untrusted(line)
    assert candidate.serialize() == line
    assert candidate.usable is usable
    assert Candidate.parse_untrusted(f"candidate:{line}") == candidate


def test_the_fields_of_a_candidate() -> None:
    candidate = Candidate.parse_untrusted("f 1 udp 5 192.0.2.7 50000 typ relay raddr 10.0.0.1 rport 7 generation 3")
    assert candidate == Candidate(
        foundation="f",
        component=1,
        transport="udp",
        priority=5,
        address="192.0.2.7",
        port=50000,
        type="relay",
        related_address="10.0.0.1",
        related_port=7,
        extensions=(("generation", "3"),),
    )
    assert candidate.transport_address == pack_address("192.0.2.7", 50000)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "1 1 udp 1 192.0.2.7 5000 typ",
        "1 1 udp 1 192.0.2.7 5000 type host",
        "1 1 udp 4294967296 192.0.2.7 5000 typ host",
        "1 1 udp 1 192.0.2.7 65536 typ host",
        "1 257 udp 1 192.0.2.7 5000 typ host",
        "1 1 udp -1 192.0.2.7 5000 typ host",
        "1 ١ udp 1 192.0.2.7 5000 typ host",
        "1 1 udp 1 192.0.2.7\r 5000 typ host",
        "1 1 udp 1 192.0.2.7 5000 typ host generation",
        "1 1 udp 1 192.0.2.7 5000 typ host  x",
        "1 1 udp 1 192.0.2.7 5000 typ host " + "x y " * 300,
        "1" * 33 + " 1 udp 1 192.0.2.7 5000 typ host",
    ],
)
def test_broken_candidates_raise_decode_error(line: str) -> None:
    with pytest.raises(DecodeError):
        Candidate.parse_untrusted(line)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(words=st.lists(st.sampled_from([*USABLE.split(), "", "x", "raddr", "rport", "\0", "9" * 40]), max_size=14))
def test_any_words_parse_and_write_back_or_raise_decode_error(words: list[str]) -> None:
    line = " ".join(words)
    try:
        candidate = Candidate.parse_untrusted(line)
    except DecodeError:
        return
    assert Candidate.parse_untrusted(candidate.serialize()) == candidate


def test_priorities_are_those_of_rfc_8445() -> None:
    assert candidate_priority("host") == 2130706431
    assert candidate_priority("prflx") == 1862270975


@pytest.mark.parametrize(("ufrag", "pwd"), [("abcd", "p" * 22), ("A+/9" * 64, "p" * 256)])
def test_ice1_credentials_of_the_grammar_are_taken(ufrag: str, pwd: str) -> None:
    assert IceCredentials.parse_untrusted(ufrag, pwd) == IceCredentials(ufrag, pwd)


@pytest.mark.parametrize(
    ("ufrag", "pwd"),
    [("abc", "p" * 22), ("a" * 257, "p" * 22), ("ab:d", "p" * 22), ("abcd\n", "p" * 22), ("abcd", "p" * 21)],
)
def test_ice1_credentials_out_of_the_grammar_are_refused(ufrag: str, pwd: str) -> None:
    with pytest.raises(ValueError, match="ICE"):
        IceCredentials(ufrag, pwd)
    with pytest.raises(DecodeError, match="ice_"):
        IceCredentials.parse_untrusted(ufrag, pwd)


def test_ice1_generated_credentials_are_long_enough_and_keep_their_password_to_themselves() -> None:
    credentials = IceCredentials.generate(random.Random(1).randbytes)
    assert (len(credentials.ufrag), len(credentials.pwd)) == (8, 32)
    assert credentials.pwd not in repr(credentials)
