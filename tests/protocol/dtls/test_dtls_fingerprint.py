"""Certificate fingerprints: the text form, and what is refused."""

from __future__ import annotations

import contextlib
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.dtls.fingerprint import Fingerprint, matches_any
from protocol.errors import DecodeError


@pytest.mark.parametrize("algorithm", ["sha-256", "sha-384", "sha-512"])
def test_the_text_form_survives_a_round_trip(algorithm: str) -> None:
    fingerprint = Fingerprint.of(b"certificate", algorithm)
    assert Fingerprint.parse_untrusted(str(fingerprint)) == fingerprint
    assert Fingerprint.parse_untrusted(str(fingerprint).lower().encode()) == fingerprint
    assert fingerprint.matches(b"certificate")
    assert not fingerprint.matches(b"another")


def test_the_text_form_is_that_of_sdp() -> None:
    digest = hashlib.sha256(b"x").hexdigest().upper()
    text = "sha-256 " + ":".join(digest[i : i + 2] for i in range(0, 64, 2))
    assert str(Fingerprint.of(b"x")) == text


@pytest.mark.parametrize("algorithm", ["sha-1", "md5", "sha-224", "sha3-256"])
def test_weak_and_unknown_hashes_are_refused_by_name(algorithm: str) -> None:
    with pytest.raises(DecodeError) as caught:
        Fingerprint.parse_untrusted(f"{algorithm} AA:BB")
    assert caught.value.reason == "fingerprint_algorithm"


@pytest.mark.parametrize(
    "text", ["", "sha-256", "sha-256 ", "sha-256 AA", "sha-256 A:B", "sha-256 AA:BB:", "sha-256 " + "AA:" * 90]
)
def test_malformed_text_is_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        Fingerprint.parse_untrusted(text)


def test_any_of_several_fingerprints_may_match() -> None:
    first, second = Fingerprint.of(b"a"), Fingerprint.of(b"b", "sha-512")
    assert matches_any((first, second), b"b")
    assert not matches_any((first, second), b"c")
    assert not matches_any((), b"a")


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.one_of(st.text(max_size=300), st.binary(max_size=300)))
def test_any_text_gives_a_fingerprint_or_a_decode_error(text: str | bytes) -> None:
    with contextlib.suppress(DecodeError):
        assert Fingerprint.parse_untrusted(text).value
