"""What we answer: to real clients' offers, and to the variations RFC 3264, 9143, 9429 and the traps of the field name."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from protocol.codecs import CODECS, OPUS, PCMA, PCMU
from protocol.errors import DecodeError
from protocol.ice.credentials import IceCredentials
from protocol.sdp import (
    Answer,
    Capabilities,
    Direction,
    OfferRefused,
    OfferUnsupported,
    SessionDescription,
    create_offer,
    parse_untrusted,
    read_answer,
    read_offer,
)

Respond = Callable[..., Answer]
Parts = dict[str, str]


def described(answered: Answer) -> SessionDescription:
    return parse_untrusted(answered.sdp)


def test_every_captured_offer_gets_opus_and_a_data_channel(captured: str, respond: Respond):
    answered = respond(captured)
    offer = parse_untrusted(captured)
    assert answered.audio is not None
    assert answered.audio.codec is OPUS
    assert answered.audio.direction == Direction.SENDRECV
    assert answered.data is not None
    assert answered.data.remote_sctp_port == 5000
    assert answered.data.remote_max_message_size == int(offer.media[1].value("max-message-size") or 0)
    assert answered.remote_ice.ufrag == offer.media[0].value("ice-ufrag")
    assert answered.role == "server"
    assert "sha-256" in {fingerprint.algorithm for fingerprint in answered.remote_fingerprints}


def test_the_answer_has_the_shape_that_browsers_need(captured: str, respond: Respond):
    answered = respond(captured)
    description = described(answered)
    audio, data = description.media
    assert answered.sdp.endswith("\r\n")
    assert "\n" not in answered.sdp.replace("\r\n", "")
    assert description.session.has("ice-lite")
    assert description.session.value("group") == "BUNDLE 0 1"
    assert (audio.value("setup"), data.value("setup")) == ("passive", "passive")
    assert (audio.value("mid"), data.value("mid")) == ("0", "1")
    assert audio.has("rtcp-mux")
    # Pages and SDKs take `event.streams[0]`, which only a=msid makes.
    assert audio.value("msid") == "antiphon audio"
    assert audio.values("ssrc") == ("4242 cname:antiphon", "4242 msid:antiphon audio")
    assert len(audio.values("candidate")) == 1
    assert data.values("candidate") == ()
    for unused in ("rtcp-fb", "extmap", "rtcp-xr", "sctp-init", "ice-options"):
        assert not audio.has(unused)
        assert not data.has(unused)
    assert "red/" not in answered.sdp
    assert len([value for value in audio.values("rtpmap") if "telephone-event" not in value]) == 1


def test_reduced_size_rtcp_is_answered_only_when_offered(respond: Respond, parts: Parts):
    assert "rtcp-rsize" not in respond(parts["both"]).sdp
    assert "a=rtcp-rsize" in respond(parts["both"].replace("a=rtcp-mux\n", "a=rtcp-mux\na=rtcp-rsize\n")).sdp


def test_mixed_header_forms_trickling_and_an_associations_name_are_answered_where_they_were_offered(
    respond: Respond, parts: Parts, capabilities: Capabilities
):
    named = dataclasses.replace(capabilities, tls_id="ours-" * 5)
    plain = respond(parts["both"], named).sdp
    assert not any(word in plain for word in ("extmap-allow-mixed", "ice-options", "tls-id"))
    offer = parts["both"].replace("a=mid:0\n", f"a=mid:0\na=extmap-allow-mixed\na=tls-id:{'x' * 20}\n")
    answered = respond(offer.replace("t=0 0\n", "t=0 0\na=ice-options:trickle renomination\n"), named)
    session, (audio, data) = described(answered).session, described(answered).media
    assert (session.has("extmap-allow-mixed"), audio.has("extmap-allow-mixed")) == (False, True)
    assert session.value("ice-options") == "trickle"
    assert (audio.value("tls-id"), data.value("tls-id")) == ("ours-" * 5, None)  # the tagged section speaks for all
    assert answered.remote_tls_id == "x" * 20
    assert "ice-options" not in respond(offer.replace("t=0 0\n", "t=0 0\na=ice-options:ice2,renomination\n"), named).sdp


def test_the_answer_is_a_pure_function(captured: str, respond: Respond):
    assert respond(captured) == respond(captured)


@pytest.mark.parametrize(
    ("formats", "maps", "codec", "payload_type"),
    [
        ("111", "a=rtpmap:111 OPUS/48000/2\n", OPUS, 111),
        ("96 97", "a=rtpmap:96 speex/8000\na=rtpmap:97 Opus/48000/2\n", OPUS, 97),
        ("0 111", "a=rtpmap:111 opus/48000/2\n", PCMU, 0),
        ("8", "", PCMA, 8),
        ("100", "a=rtpmap:100 pcmu/8000/1\n", PCMU, 100),
        ("111 0", "a=rtpmap:111 opus/48000\n", PCMU, 0),
        ("70 8", "a=rtpmap:70 opus/48000/2\n", PCMA, 8),
        ("300 8", "a=rtpmap:300 opus/48000/2\n", PCMA, 8),
        ("111 8", "a=rtpmap:111 opus\n", PCMA, 8),
    ],
)
def test_the_first_codec_of_the_offer_that_we_carry_is_chosen(
    respond: Respond, parts: Parts, formats: str, maps: str, codec: object, payload_type: int
):
    text = parts["both"].replace("111 0 8 126", formats).replace("a=rtpmap:111 opus/48000/2\n", maps)
    audio = respond(text).audio
    assert audio is not None
    assert (audio.codec, audio.payload_type) == (codec, payload_type)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_every_registered_codec_can_be_negotiated(respond: Respond, parts: Parts, codec):
    number = codec.static_payload_type if codec.static_payload_type is not None else 120
    text = parts["both"].replace("111 0 8 126", f"{number}")
    text = text.replace("a=rtpmap:111 opus/48000/2\n", f"a=rtpmap:{number} {codec.encoding}\n")
    answered = respond(text)
    assert answered.audio is not None
    assert answered.audio.codec is codec
    assert f"a=rtpmap:{number} {codec.encoding}\r\n" in answered.sdp


def test_telephone_events_follow_the_clock_of_the_codec_when_they_can(respond: Respond, parts: Parts):
    audio = respond(parts["both"]).audio
    assert audio is not None
    assert (audio.telephone_event_payload_type, audio.telephone_event_clock_rate) == (126, 8000)
    both = parts["both"].replace("8 126", "8 126 110") + "a=x\n"
    both = both.replace("a=rtpmap:126", "a=rtpmap:110 Telephone-Event/48000\na=rtpmap:126")
    audio = respond(both).audio
    assert audio is not None
    assert (audio.telephone_event_payload_type, audio.telephone_event_clock_rate) == (110, 48_000)


@pytest.mark.parametrize(
    ("offered", "answered"),
    [("sendrecv", "sendrecv"), ("sendonly", "recvonly"), ("recvonly", "sendonly"), ("inactive", "inactive")],
)
def test_the_direction_is_mirrored(respond: Respond, parts: Parts, offered: str, answered: str):
    result = respond(parts["both"].replace("a=sendrecv", f"a={offered}"))
    assert result.audio is not None
    assert result.audio.direction == answered
    section = described(result).media[0]
    assert section.has(answered)
    assert section.has("msid") == (answered in ("sendrecv", "sendonly"))


def test_a_direction_of_the_session_counts_for_sections_without_one(respond: Respond, parts: Parts):
    text = parts["both"].replace("a=sendrecv\n", "").replace("t=0 0\n", "t=0 0\na=recvonly\n")
    audio = respond(text).audio
    assert audio is not None
    assert audio.direction == Direction.SENDONLY


def test_we_send_only_what_we_can(respond: Respond, parts: Parts, capabilities: Capabilities):
    listener = dataclasses.replace(capabilities, direction=Direction.RECVONLY)
    audio = respond(parts["both"], listener).audio
    assert audio is not None
    assert audio.direction == Direction.RECVONLY


def test_session_level_ice_fingerprint_and_setup_are_defaults(respond: Respond, parts: Parts):
    lines = ["a=ice-ufrag:wxyz", f"a=ice-pwd:{'q' * 22}", f"a=fingerprint:SHA-256 {':'.join(['cd'] * 32)}"]
    text = "\n".join(
        line for line in parts["both"].split("\n") if not line.startswith(("a=ice-", "a=fingerprint", "a=setup"))
    )
    answered = respond(text.replace("t=0 0\n", "t=0 0\n" + "\n".join(lines) + "\na=setup:active\n"))
    assert answered.remote_ice == IceCredentials("wxyz", "q" * 22)
    assert answered.remote_fingerprints[0].value == b"\xcd" * 32
    assert answered.role == "server"


@pytest.mark.parametrize(
    ("offered", "ours", "answered", "role"),
    [
        ("a=setup:actpass\n", "passive", "passive", "server"),
        ("a=setup:actpass\n", "active", "active", "client"),
        ("a=setup:active\n", "active", "passive", "server"),
        ("a=setup:passive\n", "passive", "active", "client"),
        ("", "passive", "passive", "server"),
    ],
)
def test_the_dtls_roles_complement_each_other(
    respond: Respond, parts: Parts, capabilities: Capabilities, offered: str, ours: str, answered: str, role: str
):
    result = respond(parts["both"].replace("a=setup:actpass\n", offered), dataclasses.replace(capabilities, setup=ours))
    assert (described(result).media[0].value("setup"), result.role) == (answered, role)
    assert result.sdp.count(f"a=setup:{answered}\r\n") == 2


def test_every_section_is_answered_in_its_place_and_what_we_do_not_take_has_port_zero(respond: Respond, parts: Parts):
    second_audio = parts["audio"].replace("a=mid:0", "a=mid:3")
    odd = "m=message 9 TCP/MSRP *\na=mid:4\n"
    second_data = parts["data"].replace("a=mid:1", "a=mid:5")
    text = parts["session"] + "a=group:BUNDLE 0 2 3 1 5\n" + parts["video"] + parts["audio"] + second_audio
    answered = respond(text + odd + parts["data"] + second_data)
    description = described(answered)
    assert [(s.media, bool(s.port), s.value("mid")) for s in description.media] == [
        ("video", False, "2"),
        ("audio", True, "0"),
        ("audio", False, "3"),
        ("message", False, "4"),
        ("application", True, "1"),
        ("application", False, "5"),
    ]
    assert description.session.value("group") == "BUNDLE 0 1"
    assert description.media[0].formats == ("96",)
    assert description.media[0].has("inactive")
    assert not description.media[0].has("ice-ufrag")


def test_audio_alone_and_data_alone_are_offers(respond: Respond, parts: Parts):
    audio_only = respond(parts["session"] + parts["audio"])
    assert audio_only.data is None
    assert audio_only.audio is not None
    assert "a=group" not in audio_only.sdp
    data_only = respond(parts["session"] + "a=group:BUNDLE 1\n" + parts["data"])
    assert data_only.audio is None
    assert data_only.data is not None
    assert "a=candidate" in data_only.sdp
    assert "a=group:BUNDLE 1\r\n" in data_only.sdp


def test_a_bundle_only_section_with_port_zero_is_taken(respond: Respond, parts: Parts):
    bare = "m=application 0 UDP/DTLS/SCTP webrtc-datachannel\na=mid:1\na=bundle-only\na=sctp-port:5000\n"
    answered = respond(parts["session"] + "a=group:BUNDLE 0 1\n" + parts["audio"] + bare)
    assert answered.data is not None
    assert described(answered).media[1].port == 9
    unbundled = respond(parts["session"] + parts["audio"] + bare)
    assert unbundled.data is None
    assert described(unbundled).media[1].port == 0


def test_bundle_only_audio_takes_transport_and_rtcp_mux_from_the_tagged_section(respond: Respond, parts: Parts):
    bare = "m=audio 0 UDP/TLS/RTP/SAVPF 111\na=mid:0\na=bundle-only\na=rtpmap:111 opus/48000/2\n"
    answered = respond(parts["session"] + "a=group:BUNDLE 2 0\n" + parts["video"] + bare)
    assert answered.audio is not None
    assert answered.remote_ice.ufrag == "abcd"
    assert "a=group:BUNDLE 2 0\r\n" in answered.sdp


def test_a_bundled_section_may_leave_everything_about_the_transport_to_the_tagged_one(respond: Respond, parts: Parts):
    # Not only bundle-only ones: RFC 9143 §7.1.3 has all offers after the first so.
    bare = "m=audio 9 UDP/TLS/RTP/SAVPF 111\na=mid:0\na=rtpmap:111 opus/48000/2\n"
    answered = respond(parts["session"] + "a=group:BUNDLE 2 0\n" + parts["video"] + bare)
    assert answered.audio is not None
    assert described(answered).media[1].has("rtcp-mux")
    with pytest.raises(OfferRefused):
        respond(parts["session"] + "a=group:BUNDLE 0\n" + parts["video"] + bare)


def test_a_group_of_bundle_only_sections_alone_is_off(respond: Respond, parts: Parts):
    offer = parts["both"].replace("m=audio 9", "m=audio 0").replace("m=application 9", "m=application 0")
    with pytest.raises(OfferRefused) as refused:
        respond(offer.replace("a=mid:", "a=bundle-only\na=mid:"))
    assert refused.value.code == "no_audio_or_data"


def test_exclusive_multiplexing_of_rtcp_is_taken_and_not_said_back(respond: Respond, parts: Parts):
    answered = respond(parts["both"].replace("a=rtcp-mux\n", "a=rtcp-mux-only\n"))
    audio = described(answered).media[0]
    assert (audio.has("rtcp-mux"), audio.has("rtcp-mux-only")) == (True, False)  # RFC 8858 §3


def test_a_tagged_section_we_do_not_take_is_kept_inactive_for_its_group(respond: Respond, parts: Parts):
    video = parts["video"].replace("a=ice-ufrag:abcd", "a=ice-ufrag:tagg").replace("SAVPF 96", "SAVPF 96 97")
    video += "a=rtpmap:97 rtx/90000\na=fmtp:97 apt=96\n"
    answered = respond(parts["session"] + "a=group:BUNDLE 2 0 1\n" + video + parts["audio"] + parts["data"])
    kept, audio, data = described(answered).media
    assert (kept.port, kept.formats, kept.has("inactive")) == (9, ("96",), True)
    assert kept.values("rtpmap") == ("96 VP8/90000",)
    assert not kept.has("ssrc")
    assert [section.has("candidate") for section in (kept, audio, data)] == [True, False, False]
    assert described(answered).session.value("group") == "BUNDLE 2 0 1"
    assert answered.remote_ice.ufrag == "tagg"
    assert answered.audio is not None
    assert answered.data is not None


def test_a_tagged_section_that_cannot_be_kept_is_rejected(respond: Respond, parts: Parts):
    odd = "m=message 9 TCP/MSRP *\na=mid:4\n"
    answered = respond(parts["session"] + "a=group:BUNDLE 4 0\n" + odd + parts["audio"])
    assert described(answered).media[0].port == 0
    assert described(answered).session.value("group") == "BUNDLE 0"


def test_a_section_switched_off_stays_off(respond: Respond, parts: Parts):
    answered = respond(parts["both"].replace("m=application 9", "m=application 0"))
    assert answered.data is None
    assert described(answered).media[1].port == 0
    assert described(answered).session.value("group") == "BUNDLE 0"


def test_the_first_accepted_section_of_the_group_gives_the_transport(respond: Respond, parts: Parts):
    data = parts["data"].replace("a=ice-ufrag:abcd", "a=ice-ufrag:tagg")
    text = parts["session"] + "a=group:BUNDLE 1 0\n" + parts["audio"] + data
    answered = respond(text)
    assert answered.remote_ice.ufrag == "tagg"
    description = described(answered)
    assert description.session.value("group") == "BUNDLE 1 0"
    assert not description.media[0].has("candidate")
    assert description.media[1].has("candidate")


def test_a_data_channel_outside_the_bundle_of_the_audio_is_rejected(respond: Respond, parts: Parts):
    for group in ("", "a=group:BUNDLE 0\n", "a=group:BUNDLE 0\na=group:BUNDLE 1\n"):
        answered = respond(parts["session"] + group + parts["audio"] + parts["data"])
        assert answered.audio is not None
        assert answered.data is None
        assert described(answered).media[1].port == 0


def test_audio_without_a_common_codec_leaves_the_data_channel(respond: Respond, parts: Parts):
    text = parts["both"].replace("111 0 8 126", "96").replace("111 opus/48000/2", "96 speex/16000")
    for group in ("BUNDLE 0 1", "BUNDLE 1 0"):
        answered = respond(text.replace("BUNDLE 0 1", group))
        assert answered.audio is None
        assert answered.data is not None
        audio = described(answered).media[0]
        assert audio.has("inactive")
        assert bool(audio.port) == (group == "BUNDLE 0 1")  # the tagged section is kept


@pytest.mark.parametrize("profile", ["UDP/TLS/RTP/SAVP", "RTP/SAVPF", "TCP/DTLS/RTP/SAVPF", "RTP/AVP"])
def test_the_profile_of_the_offer_is_repeated(respond: Respond, parts: Parts, profile: str):
    answered = respond(parts["both"].replace("UDP/TLS/RTP/SAVPF", profile))
    assert described(answered).media[0].protocol == profile
    assert described(answered).media[0].port == 9


def test_only_candidates_that_a_datagram_can_reach_are_kept(respond: Respond, parts: Parts):
    candidates = """a=candidate:1 1 udp 2122260223 192.0.2.9 50000 typ host generation 0
a=candidate:2 1 UDP 2122260222 2001:db8::9 50001 typ host
a=candidate:3 1 udp 2122260221 9b3d2ff0-7a5b-4a43-8a58-3c5f0d7a0a4e.local 50002 typ host
a=candidate:4 1 tcp 2122260220 192.0.2.9 9 typ host tcptype active
a=candidate:5 2 udp 2122260219 192.0.2.9 50003 typ host
a=candidate:6 1 udp 2122260218 host.example.net 50004 typ host
a=candidate:7 1 udp nonsense
a=candidate:8 1 udp 2122260217 192.0.2.9 50005 typ quantum
a=candidate
"""
    answered = respond(parts["both"].replace("a=mid:0\n", f"a=mid:0\n{candidates}"))
    assert [candidate.address for candidate in answered.remote_candidates] == ["192.0.2.9", "2001:db8::9"]


def test_header_extensions_are_answered_only_when_we_use_them(
    captured: str, respond: Respond, capabilities: Capabilities
):
    uri = "urn:ietf:params:rtp-hdrext:sdes:mid"
    answered = respond(captured, dataclasses.replace(capabilities, extensions=(uri,)))
    assert answered.audio is not None
    number = answered.audio.extensions[uri]
    assert f"a=extmap:{number} {uri}" in captured
    assert described(answered).media[0].values("extmap") == (f"{number} {uri}",)


def test_an_extension_the_offerer_only_receives_is_one_we_only_send(
    respond: Respond, parts: Parts, capabilities: Capabilities
):
    text = parts["both"].replace("a=mid:0\n", "a=mid:0\na=extmap:2/recvonly urn:level\na=extmap:15 urn:other\n")
    answered = respond(text, dataclasses.replace(capabilities, extensions=("urn:level", "urn:other")))
    assert described(answered).media[0].values("extmap") == ("2/sendonly urn:level",)


def test_absent_and_unlimited_message_sizes_are_told_apart(respond: Respond, parts: Parts):
    absent = respond(parts["both"].replace("a=max-message-size:262144\n", "").replace("a=sctp-port:5000\n", ""))
    assert absent.data is not None
    assert (absent.data.remote_max_message_size, absent.data.remote_sctp_port) == (65_536, 5000)
    unlimited = respond(parts["both"].replace("size:262144", "size:0"))
    assert unlimited.data is not None
    assert unlimited.data.remote_max_message_size == 0


@pytest.mark.parametrize("port", ["1", "65535"])
def test_every_sctp_port_but_zero_is_taken(respond: Respond, parts: Parts, port: str):
    data = respond(parts["both"].replace("sctp-port:5000", f"sctp-port:{port}")).data
    assert data is not None
    assert data.remote_sctp_port == int(port)


@pytest.mark.parametrize(
    "line",
    [
        "m=application 9 UDP/DTLS/SCTP 5000",
        "m=application 9 DTLS/SCTP 5000\na=sctpmap:5000 webrtc-datachannel 1024",
        "m=application 9 UDP/DTLS/SCTP something-else",
        "m=application 9 UDP/BFCP *",
    ],
)
def test_what_is_no_data_channel_as_rfc_8841_writes_them_is_rejected(respond: Respond, parts: Parts, line: str):
    answered = respond(parts["both"].replace("m=application 9 UDP/DTLS/SCTP webrtc-datachannel", line))
    assert answered.data is None
    assert described(answered).media[1].port == 0


@pytest.mark.parametrize(("audio", "data"), [(True, True), (True, False), (False, True)])
def test_our_own_offer_and_answer_agree(respond: Respond, capabilities: Capabilities, audio: bool, data: bool):
    client = dataclasses.replace(
        capabilities, ice_lite=False, ice=IceCredentials("clientufrag", "c" * 24), max_message_size=100_000, cname="c"
    )
    answered = respond(create_offer(client, audio=audio, data=data))
    settled = read_answer(parse_untrusted(answered.sdp), client)
    assert (answered.role, settled.role) == ("server", "client")
    assert settled.remote_ice == capabilities.ice
    assert settled.remote_fingerprints == (capabilities.fingerprint,)
    assert settled.remote_candidates == capabilities.candidates
    assert settled.remote_ice_lite
    assert (settled.audio is not None, settled.data is not None) == (audio, data)
    if settled.audio is not None and answered.audio is not None:
        assert settled.audio.codec is answered.audio.codec is OPUS
        assert settled.audio.payload_type == answered.audio.payload_type
        assert settled.audio.telephone_event_payload_type == answered.audio.telephone_event_payload_type == 110
    if settled.data is not None and answered.data is not None:
        assert settled.data.remote_max_message_size == 262_144
        assert answered.data.remote_max_message_size == 100_000


def test_our_own_offer_can_ask_for_one_codec_only(respond: Respond, capabilities: Capabilities):
    client = dataclasses.replace(capabilities, ice_lite=False, codecs=(PCMA,))
    audio = respond(create_offer(client)).audio
    assert audio is not None
    assert (audio.codec, audio.telephone_event_clock_rate) == (PCMA, 8000)


@pytest.mark.parametrize(
    ("line", "other"),
    [
        ("a=setup:passive", "a=setup:actpass"),
        ("opus/48000/2", "opus/16000"),
        ("a=mid:0", "a=mid:7"),
        ("a=fingerprint:sha-256", "a=fingerprint:md5"),
        ("a=group:BUNDLE 0 1\r\n", ""),
    ],
)
def test_an_answer_that_does_not_fit_is_refused(respond: Respond, capabilities: Capabilities, line: str, other: str):
    client = dataclasses.replace(capabilities, ice_lite=False)
    text = respond(create_offer(client)).sdp
    if line == "a=mid:0":
        text = text.replace("BUNDLE 0 1", "BUNDLE 7 1")
    with pytest.raises(DecodeError):
        read_answer(parse_untrusted(text.replace(line, other)), client)


AIORTC = """
import asyncio, json, sys
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack
async def main():
    pc = RTCPeerConnection(); tracks = []
    pc.on("track", tracks.append)
    pc.addTrack(AudioStreamTrack()); pc.createDataChannel("oai-events")
    await pc.setLocalDescription(await pc.createOffer())
    print(json.dumps(pc.localDescription.sdp), flush=True)
    await pc.setRemoteDescription(RTCSessionDescription(json.loads(sys.stdin.readline()), "answer"))
    print(json.dumps([pc.signalingState, len(tracks), pc.getTransceivers()[0].currentDirection]), flush=True)
    await pc.close()
asyncio.run(main())
"""


@pytest.mark.slow
def test_aiortc_takes_our_answer(respond: Respond, capabilities: Capabilities):
    with subprocess.Popen(
        [sys.executable, "-c", AIORTC], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as peer:
        assert peer.stdin is not None
        assert peer.stdout is not None
        answered = respond(json.loads(peer.stdout.readline()), dataclasses.replace(capabilities, candidates=()))
        peer.stdin.write(json.dumps(answered.sdp) + "\n")
        peer.stdin.flush()
        assert json.loads(peer.stdout.readline()) == ["stable", 1, "sendrecv"]
    assert answered.audio is not None
    assert answered.audio.codec is OPUS


def test_what_we_cannot_do_is_told_apart_from_what_is_wrong(respond: Respond, parts: Parts):
    with pytest.raises(OfferUnsupported):
        respond(parts["session"] + parts["audio"].replace("111 0 8 126", "9"))
    with pytest.raises(OfferRefused) as refused:
        respond(parts["both"].replace("a=ice-ufrag:abcd", "a=ice-ufrag:ab"))
    assert not isinstance(refused.value, OfferUnsupported)


def test_two_lite_sides_are_refused_because_nobody_would_check(respond: Respond, parts: Parts):
    with pytest.raises(OfferRefused) as refused:
        respond(parts["both"].replace("t=0 0\n", "t=0 0\na=ice-lite\n"))
    assert refused.value.code == "ice_lite_offer"
    assert read_offer(parse_untrusted(parts["both"])).ice_lite is False
