"""Each unusable offer is refused with its own code, a sentence for a person, and the line at fault."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from protocol.sdp import Answer, OfferRefused

GOOD = "a=fingerprint:sha-256 " + ":".join(["AB"] * 32)
PWD = "a=ice-pwd:" + "p" * 24

# (what is wrong, old text, new text, code, param); the old text is replaced wherever it stands
SPOILED = [
    ("no fingerprint", f"{GOOD}\n", "", "no_fingerprint", "a=fingerprint"),
    ("md5", GOOD, "a=fingerprint:md5 " + ":".join(["AB"] * 16), "weak_fingerprint", "a=fingerprint"),
    ("sha-1", GOOD, "a=fingerprint:sha-1 " + ":".join(["AB"] * 20), "weak_fingerprint", "a=fingerprint"),
    ("a short sha-256", GOOD, GOOD[:-3], "invalid_fingerprint", "a=fingerprint"),
    ("no hex", GOOD, GOOD.replace("AB", "XY"), "invalid_fingerprint", "a=fingerprint"),
    ("an empty fingerprint", GOOD, "a=fingerprint:", "invalid_fingerprint", "a=fingerprint"),
    ("nine fingerprints", f"{GOOD}\n", f"{GOOD}\n" * 9, "too_many_fingerprints", "a=fingerprint"),
    ("no ufrag", "a=ice-ufrag:abcd\n", "", "no_ice_ufrag", "a=ice-ufrag"),
    ("no pwd", f"{PWD}\n", "", "no_ice_pwd", "a=ice-pwd"),
    ("a short ufrag", "a=ice-ufrag:abcd", "a=ice-ufrag:abc", "invalid_ice_ufrag", "a=ice-ufrag"),
    ("a long ufrag", "a=ice-ufrag:abcd", "a=ice-ufrag:" + "a" * 257, "invalid_ice_ufrag", "a=ice-ufrag"),
    ("a ufrag with a space", "a=ice-ufrag:abcd", "a=ice-ufrag:ab cd", "invalid_ice_ufrag", "a=ice-ufrag"),
    ("a ufrag with a hyphen", "a=ice-ufrag:abcd", "a=ice-ufrag:ab-cd", "invalid_ice_ufrag", "a=ice-ufrag"),
    ("a ufrag beyond ASCII", "a=ice-ufrag:abcd", "a=ice-ufrag:äbcd", "invalid_ice_ufrag", "a=ice-ufrag"),
    ("a short pwd", PWD, "a=ice-pwd:" + "p" * 21, "invalid_ice_pwd", "a=ice-pwd"),
    ("a long pwd", PWD, "a=ice-pwd:" + "p" * 257, "invalid_ice_pwd", "a=ice-pwd"),
    ("a pwd with a colon", PWD, PWD + ":", "invalid_ice_pwd", "a=ice-pwd"),
    ("no rtcp-mux", "a=rtcp-mux\n", "", "no_rtcp_mux", "a=rtcp-mux"),
    ("an unknown BUNDLE mid", "BUNDLE 0 1", "BUNDLE 0 1 7", "unknown_bundle_mid", "a=group:BUNDLE"),
    ("a repeated BUNDLE mid", "BUNDLE 0 1", "BUNDLE 0 1 0", "repeated_bundle_mid", "a=group:BUNDLE"),
    (
        "a mid in two BUNDLE groups",
        "BUNDLE 0 1",
        "BUNDLE 0 1\na=group:BUNDLE 1",
        "repeated_bundle_mid",
        "a=group:BUNDLE",
    ),
    ("two sections with one mid", "a=mid:1", "a=mid:0", "repeated_mid", "a=mid"),
    ("a mid that is no token", "a=mid:1", "a=mid:a b", "invalid_mid", "a=mid"),
    ("an empty mid", "a=mid:1", "a=mid:", "invalid_mid", "a=mid"),
    ("holdconn", "a=setup:actpass", "a=setup:holdconn", "invalid_setup", "a=setup"),
    ("an unknown setup", "a=setup:actpass", "a=setup:maybe", "invalid_setup", "a=setup"),
    ("a short tls-id", "a=setup:actpass", "a=setup:actpass\na=tls-id:abc", "invalid_tls_id", "a=tls-id"),
    ("a tls-id with a space", "a=setup:actpass", f"a=tls-id:{'a ' * 20}", "invalid_tls_id", "a=tls-id"),
    ("sctp-port 0", "a=sctp-port:5000", "a=sctp-port:0", "invalid_sctp_port", "a=sctp-port"),
    ("sctp-port 65536", "a=sctp-port:5000", "a=sctp-port:65536", "invalid_sctp_port", "a=sctp-port"),
    ("no number", "size:262144", "size:lots", "invalid_max_message_size", "a=max-message-size"),
    ("101 candidates", "a=mid:0\n", "a=mid:0\n" + "a=candidate:x\n" * 101, "too_many_candidates", "a=candidate"),
]


@pytest.mark.parametrize(
    ("old", "new", "code", "param"), [case[1:] for case in SPOILED], ids=[case[0] for case in SPOILED]
)
def test_an_offer_with(
    respond: Callable[..., Answer], parts: dict[str, str], old: str, new: str, code: str, param: str
):
    assert old in parts["both"]
    with pytest.raises(OfferRefused) as refused:
        respond(parts["both"].replace(old, new))
    error = refused.value
    assert (error.code, error.param, error.reason) == (code, param, code)
    assert re.fullmatch(r"[A-Z].+\.", error.message)


@pytest.mark.parametrize("kept", ["", "video", "audio off and data off", "plain SCTP"])
def test_an_offer_with_neither_audio_nor_data(respond: Callable[..., Answer], parts: dict[str, str], kept: str):
    text = {
        "": parts["session"],
        "video": parts["session"] + parts["video"],
        "audio off and data off": parts["both"]
        .replace("m=audio 9", "m=audio 0")
        .replace("m=application 9", "m=application 0"),
        "plain SCTP": parts["session"] + parts["data"].replace("UDP/DTLS/SCTP", "SCTP"),
    }[kept]
    with pytest.raises(OfferRefused) as refused:
        respond(text)
    assert (refused.value.code, refused.value.param) == ("no_audio_or_data", "m=")


def test_an_audio_offer_without_a_codec_of_ours_says_which_we_carry(
    respond: Callable[..., Answer], parts: dict[str, str]
):
    text = parts["session"] + parts["audio"].replace("111 0 8 126", "9")
    with pytest.raises(OfferRefused) as refused:
        respond(text)
    assert (refused.value.code, refused.value.param) == ("no_common_codec", "a=rtpmap")
    assert "opus, PCMU, PCMA" in refused.value.message


def test_a_weak_fingerprint_beside_a_strong_one_is_passed_over(respond: Callable[..., Answer], parts: dict[str, str]):
    weak = "a=fingerprint:sha-1 " + ":".join(["AB"] * 20)
    answered = respond(parts["both"].replace(GOOD, f"{weak}\n{GOOD}"))
    assert [fingerprint.algorithm for fingerprint in answered.remote_fingerprints] == ["sha-256"]


def test_a_section_that_is_rejected_anyway_may_be_as_broken_as_it_likes(
    respond: Callable[..., Answer], parts: dict[str, str]
):
    video = "m=video 9 UDP/TLS/RTP/SAVPF 96\na=mid:2\na=ice-ufrag:?\na=fingerprint:md5 00\n"
    answered = respond(parts["both"] + video)
    assert answered.audio is not None
    assert "m=video 0 UDP/TLS/RTP/SAVPF 96\r\n" in answered.sdp


def test_no_text_of_the_peer_comes_back_in_a_refusal(respond: Callable[..., Answer], parts: dict[str, str]):
    with pytest.raises(OfferRefused) as refused:
        respond(parts["both"].replace("a=setup:actpass", "a=setup:<script>"))
    assert "script" not in str(refused.value)
