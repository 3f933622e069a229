"""Further offers: what they may change and what not (RFC 3264 §8, RFC 8842 §5, RFC 8839 §4.4, RFC 9429 §5.3)."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable

import pytest

from protocol.codecs import OPUS, PCMU
from protocol.ice.credentials import IceCredentials
from protocol.sdp import (
    Agreement,
    Answer,
    Capabilities,
    OfferRefused,
    OfferUnsupported,
    answer,
    answer_again,
    parse_untrusted,
    read_offer,
)

Parts = dict[str, str]
FRESH = IceCredentials("F" * 48, "f" * 32)
OTHER_FINGERPRINT = ":".join(["CD"] * 32)


class Dialogue:
    """Offers and answers of one call, one after another."""

    def __init__(self, text: str, capabilities: Capabilities) -> None:
        self.first = answer(read_offer(parse_untrusted(text)), capabilities)
        self.agreement = Agreement.reached(capabilities, self.first)

    def offer(self, text: str) -> Answer:
        answered, self.agreement = answer_again(read_offer(parse_untrusted(text)), self.agreement, FRESH)
        return answered

    def refused(self, text: str) -> OfferRefused:
        before = self.agreement
        with pytest.raises(OfferRefused) as refused:
            self.offer(text)
        assert self.agreement is before
        assert re.fullmatch(r"[A-Z].+\.", refused.value.message)
        return refused.value


@pytest.fixture
def open_dialogue(capabilities: Capabilities) -> Callable[..., Dialogue]:
    def open_dialogue(text: str, **changes: object) -> Dialogue:
        return Dialogue(text, dataclasses.replace(capabilities, **changes))

    return open_dialogue


Open = Callable[..., Dialogue]


def origin(sdp: str) -> list[str]:
    return parse_untrusted(sdp).session.lines[1].value.split()


def without_origin(sdp: str) -> str:
    return re.sub(r"(?m)^o=.*$", "", sdp)


def test_the_same_offer_again_changes_only_the_version(captured: str, open_dialogue: Open):
    dialogue = open_dialogue(captured)
    second, third = dialogue.offer(captured), dialogue.offer(captured)
    assert without_origin(dialogue.first.sdp) == without_origin(second.sdp) == without_origin(third.sdp)
    assert [origin(answered.sdp)[1:3] for answered in (dialogue.first, second, third)] == [
        ["42", "1"],
        ["42", "2"],
        ["42", "3"],
    ]
    assert dataclasses.replace(second, sdp="") == dataclasses.replace(dialogue.first, sdp="")


def test_a_call_is_held_and_taken_up_again(open_dialogue: Open, parts: Parts):
    dialogue = open_dialogue(parts["both"])
    for offered, ours in (("sendonly", "recvonly"), ("inactive", "inactive"), ("recvonly", "sendonly")):
        answered = dialogue.offer(parts["both"].replace("a=sendrecv", f"a={offered}"))
        assert answered.audio is not None
        assert answered.audio.direction == ours
        assert f"\r\na={ours}\r\n" in answered.sdp
    answered = dialogue.offer(parts["both"])
    assert answered.audio == dialogue.first.audio
    assert without_origin(answered.sdp) == without_origin(dialogue.first.sdp)


def test_a_data_channel_comes_goes_and_comes_back(open_dialogue: Open, parts: Parts):
    alone = parts["session"] + "a=group:BUNDLE 0\n" + parts["audio"]
    dialogue = open_dialogue(alone)
    assert dialogue.first.data is None
    assert dialogue.offer(parts["both"]).data is not None
    dropped = dialogue.offer(parts["both"].replace("m=application 9", "m=application 0"))
    assert dropped.data is None
    assert dropped.audio is not None
    assert [section.use for section in dropped.sections] == ["audio", "rejected"]
    back = dialogue.offer(parts["both"].replace("sctp-port:5000", "sctp-port:5001"))
    assert back.data is not None
    assert back.data.remote_sctp_port == 5001  # a new association may have a new port


def test_audio_goes_and_comes_back_as_the_same_stream(open_dialogue: Open, parts: Parts):
    dialogue = open_dialogue(parts["both"])
    silent = dialogue.offer(parts["both"].replace("m=audio 9", "m=audio 0"))
    assert silent.audio is None
    assert silent.data is not None
    assert dialogue.agreement.audio is not None
    recycled = parts["both"].replace("a=mid:0", "a=mid:5").replace("BUNDLE 0 1", "BUNDLE 5 1")
    back = dialogue.offer(recycled)
    assert back.audio is not None
    assert (back.audio.mid, back.audio.payload_type) == ("5", 111)


def test_audio_in_a_call_that_began_without_is_rejected_in_its_place(open_dialogue: Open, parts: Parts):
    data = parts["session"] + "a=group:BUNDLE 1\n" + parts["data"]
    dialogue = open_dialogue(data)
    with_audio = data.replace("BUNDLE 1", "BUNDLE 1 0") + parts["audio"]
    answered = dialogue.offer(with_audio)
    assert answered.audio is None
    assert [section.use for section in answered.sections] == ["data", "rejected"]


def test_new_sections_come_behind_and_what_is_in_use_stays_in_use(open_dialogue: Open, parts: Parts):
    dialogue = open_dialogue(parts["both"])
    second = parts["audio"].replace("a=mid:0", "a=mid:3") + parts["data"].replace("a=mid:1", "a=mid:4")
    answered = dialogue.offer(parts["both"].replace("BUNDLE 0 1", "BUNDLE 0 1 2 3 4") + parts["video"] + second)
    assert [section.use for section in answered.sections] == ["audio", "data", "rejected", "rejected", "rejected"]
    shuffled = parts["session"] + "a=group:BUNDLE 3 0 1\n" + second.partition("m=application")[0]
    assert dialogue.refused(shuffled + parts["audio"] + parts["data"]).code == "fewer_media_sections"


def test_a_section_that_was_off_does_not_take_over_when_it_is_switched_on(open_dialogue: Open, parts: Parts):
    early = parts["data"].replace("a=mid:1", "a=mid:2")
    text = parts["session"] + "a=group:BUNDLE 0 2 1\n" + parts["audio"] + early + parts["data"]
    dialogue = open_dialogue(text.replace("m=application 9", "m=application 0", 1))
    assert [section.use for section in dialogue.first.sections] == ["audio", "rejected", "data"]
    assert [section.use for section in dialogue.offer(text).sections] == ["audio", "rejected", "data"]
    text = parts["session"] + "a=group:BUNDLE 0 2\n" + parts["audio"].replace("a=mid:0", "a=mid:2") + parts["audio"]
    dialogue = open_dialogue(text.replace("m=audio 9", "m=audio 0", 1))
    assert [section.use for section in dialogue.first.sections] == ["rejected", "audio"]
    assert [section.use for section in dialogue.offer(text).sections] == ["rejected", "audio"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a=mid:0", "a=mid:7"),
        ("m=audio 9", "m=video 9"),
        ("m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "m=audio 9 UDP/TLS/RTP/SAVPF 0"),
    ],
)
def test_a_section_in_use_keeps_its_medium_and_its_mid(open_dialogue: Open, parts: Parts, old: str, new: str):
    text = parts["both"].replace(old, new).replace("BUNDLE 0 1", "BUNDLE 7 1" if new == "a=mid:7" else "BUNDLE 0 1")
    if "m=audio 9 UDP" in new:
        text += "a=rtcp-mux\n"
    assert open_dialogue(parts["both"]).refused(text).code == "media_section_changed"


def test_fewer_sections_are_refused(open_dialogue: Open, parts: Parts):
    error = open_dialogue(parts["both"]).refused(parts["session"] + "a=group:BUNDLE 0\n" + parts["audio"])
    assert (error.code, error.param) == ("fewer_media_sections", "m=")
    assert not isinstance(error, OfferUnsupported)


def test_new_ice_credentials_are_answered_with_new_ones_and_stay(open_dialogue: Open, parts: Parts):
    dialogue = open_dialogue(parts["both"])
    restarted = parts["both"].replace("a=ice-ufrag:abcd", "a=ice-ufrag:wxyz").replace("p" * 24, "q" * 24)
    answered = dialogue.offer(restarted)
    assert answered.remote_ice == IceCredentials("wxyz", "q" * 24)
    assert answered.sdp.count(f"a=ice-ufrag:{FRESH.ufrag}\r\na=ice-pwd:{FRESH.pwd}\r\n") == 2
    assert "a=setup:passive" in answered.sdp
    assert without_origin(dialogue.offer(restarted).sdp) == without_origin(answered.sdp)


def test_a_restart_outside_of_offer_and_answer_is_none_again(open_dialogue: Open, parts: Parts):
    dialogue = open_dialogue(parts["both"])
    dialogue.agreement = dialogue.agreement.restarted(FRESH, IceCredentials("wxyz", "q" * 24))
    restarted = parts["both"].replace("a=ice-ufrag:abcd", "a=ice-ufrag:wxyz").replace("p" * 24, "q" * 24)
    assert dialogue.offer(restarted).sdp.count(f"a=ice-ufrag:{FRESH.ufrag}\r\n") == 2


@pytest.mark.parametrize(("old", "new"), [("a=ice-ufrag:abcd", "a=ice-ufrag:wxyz"), ("p" * 24, "q" * 24)])
def test_half_an_ice_restart_is_refused(open_dialogue: Open, parts: Parts, old: str, new: str):
    assert open_dialogue(parts["both"]).refused(parts["both"].replace(old, new)).code == "invalid_ice_restart"


@pytest.mark.parametrize(
    ("old", "new", "param"),
    [
        (":".join(["AB"] * 32), OTHER_FINGERPRINT, "a=fingerprint"),
        ("a=setup:actpass", "a=setup:passive", "a=setup"),
        ("a=setup:actpass", f"a=setup:actpass\na=tls-id:{'n' * 20}", "a=tls-id"),
    ],
)
def test_what_asks_for_a_new_dtls_association_is_refused(
    open_dialogue: Open, parts: Parts, old: str, new: str, param: str
):
    error = open_dialogue(parts["both"]).refused(parts["both"].replace(old, new))
    assert (error.code, error.param) == ("new_dtls_association", param)
    assert isinstance(error, OfferUnsupported)


def test_the_dtls_role_stays_whatever_the_configuration_says_by_now(open_dialogue: Open, parts: Parts):
    active = open_dialogue(parts["both"], setup="active")
    assert active.offer(parts["both"]).role == "client"
    assert active.refused(parts["both"].replace("setup:actpass", "setup:active")).code == "new_dtls_association"
    chosen_by_peer = open_dialogue(parts["both"].replace("setup:actpass", "setup:passive"))
    assert chosen_by_peer.offer(parts["both"]).role == "client"
    passive = open_dialogue(parts["both"])
    assert passive.offer(parts["both"].replace("setup:actpass", "setup:active")).role == "server"


def test_a_tls_id_that_stays_or_is_left_out_is_the_same_association(open_dialogue: Open, parts: Parts):
    named = parts["both"].replace("a=setup:actpass", f"a=setup:actpass\na=tls-id:{'n' * 20}")
    dialogue = open_dialogue(named, tls_id="o" * 24)
    assert "a=tls-id:" + "o" * 24 in dialogue.offer(named).sdp
    dialogue.offer(parts["both"])
    dialogue.offer(named)
    assert dialogue.refused(named.replace("n" * 20, "m" * 20)).param == "a=tls-id"


def test_a_payload_type_keeps_its_meaning(open_dialogue: Open, parts: Parts):
    dialogue = open_dialogue(parts["both"])
    reordered = parts["both"].replace("111 0 8 126", "0 8 111 126")
    audio = dialogue.offer(reordered).audio
    assert audio is not None
    assert (audio.codec, audio.payload_type) == (OPUS, 111)
    for text in (
        parts["both"].replace("SAVPF 111", "SAVPF 112").replace("rtpmap:111", "rtpmap:112"),
        parts["both"].replace("111 0 8 126", "0 8 126"),
        parts["both"].replace("rtpmap:111 opus/48000/2", "rtpmap:111 pcmu/8000"),
    ):
        assert dialogue.refused(text).code in ("codec_changed", "no_common_codec")


def test_the_codec_in_use_goes_before_the_offers_order(open_dialogue: Open, parts: Parts):
    dialogue = open_dialogue(parts["both"].replace("111 0 8 126", "0 111 8 126"))
    audio = dialogue.offer(parts["both"]).audio
    assert audio is not None
    assert audio.codec is PCMU


def test_telephone_events_may_go_but_not_move(open_dialogue: Open, parts: Parts):
    dialogue = open_dialogue(parts["both"])
    moved = parts["both"].replace("8 126", "8 101").replace("rtpmap:126", "rtpmap:101")
    audio = dialogue.offer(moved).audio
    assert audio is not None
    assert audio.telephone_event_payload_type is None


@pytest.mark.parametrize(("old", "new"), [("port:5000", "port:5001"), ("size:262144", "size:1000")])
def test_the_sctp_association_in_use_stays_as_it_is(open_dialogue: Open, parts: Parts, old: str, new: str):
    assert open_dialogue(parts["both"]).refused(parts["both"].replace(old, new)).code == "data_channel_changed"


def test_an_offer_that_leaves_nothing_is_refused(open_dialogue: Open, parts: Parts):
    nothing = parts["both"].replace("m=audio 9", "m=audio 0").replace("m=application 9", "m=application 0")
    assert open_dialogue(parts["both"]).refused(nothing).code == "no_audio_or_data"


def test_a_later_offer_that_writes_the_transport_once_is_the_same_transport(open_dialogue: Open, parts: Parts):
    bare = re.sub(r"a=(ice-\w+|fingerprint|setup):.*\n", "", parts["data"])
    dialogue = open_dialogue(parts["both"])
    answered = dialogue.offer(parts["session"] + "a=group:BUNDLE 0 1\n" + parts["audio"] + bare)
    assert answered.data == dialogue.first.data
    assert answered.remote_ice == dialogue.first.remote_ice


def test_any_mutation_of_a_further_offer_is_answered_or_refused_and_never_breaks_the_agreement(
    captured: str, open_dialogue: Open
):
    dialogue = open_dialogue(captured)
    lines = captured.replace("\r\n", "\n").split("\n")
    dice = random.Random(9429)
    answered = 0
    for _ in range(400):
        mutated = list(lines)
        for _ in range(dice.randint(1, 3)):
            place = dice.randrange(len(mutated))
            edit = dice.choice(("drop", "double", "swap", "cut", "digit"))
            line = mutated[place]
            if edit == "drop":
                del mutated[place]
            elif edit == "double":
                mutated.insert(place, line)
            elif edit == "swap":
                other = dice.randrange(len(mutated))
                mutated[place], mutated[other] = mutated[other], line
            elif edit == "cut":
                mutated[place] = line[: dice.randrange(len(line) + 1)]
            else:
                mutated[place] = re.sub(r"\d", lambda _: str(dice.randrange(10)), line, count=3)
        version = dialogue.agreement.capabilities.session_version
        try:
            result = dialogue.offer("\n".join(mutated))
        except OfferRefused:
            assert dialogue.agreement.capabilities.session_version == version
            continue
        answered += 1
        assert result.role == dialogue.first.role
        assert set(result.remote_fingerprints) == set(dialogue.first.remote_fingerprints)
        assert result.audio is None or result.audio.payload_type == dialogue.first.audio.payload_type
        assert [s.use for s in result.sections if s.use != "rejected"]
        assert origin(result.sdp)[2] == str(version + 1)
    assert answered > 50
