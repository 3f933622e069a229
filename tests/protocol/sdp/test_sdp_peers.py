"""Offers in the shapes that other stacks write, each line that is odd about them kept: all are answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from protocol.codecs import OPUS, PCMU, Codec
from protocol.sdp import Answer, MediaSection, parse_untrusted

SHA_256 = "sha-256 " + ":".join(["0A"] * 32)
PWD = "p" * 32

# mDNS names, TCP candidates and a second component, as Firefox writes them without a microphone; the offer of a page that
# also receives video, which JSEP's default policy bundles and max-bundle marks so.
CHROMIUM_MAX_BUNDLE = f"""v=0
o=- 4611731400430051336 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1 2
a=extmap-allow-mixed
a=msid-semantic: WMS stream
m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=candidate:1467250027 1 udp 2122260223 0f5b8c1e-3d7f-4f0a-9b1e-6a1c0c7d2b3e.local 46243 typ host generation 0 network-id 1
a=candidate:435653019 1 tcp 1845501695 192.0.2.4 9 typ host tcptype active generation 0 network-id 1
a=ice-ufrag:Nm3q
a=ice-pwd:s20qLgU3Sl/V4ieVEElVPRLT
a=ice-options:trickle
a=fingerprint:{SHA_256}
a=setup:actpass
a=mid:0
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=sendrecv
a=msid:stream track
a=rtcp-mux
a=rtcp-rsize
a=rtcp-xr:rcvr-rtt=all
a=rtpmap:111 opus/48000/2
a=rtcp-fb:111 transport-cc
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:63 red/48000/2
a=fmtp:63 111/111
a=rtpmap:110 telephone-event/48000
a=rtpmap:126 telephone-event/8000
a=ssrc:348112347 cname:4fqc9vm806X5xAXi
m=video 0 UDP/TLS/RTP/SAVPF 96 97
c=IN IP4 0.0.0.0
a=bundle-only
a=mid:1
a=recvonly
a=rtpmap:96 VP8/90000
a=rtcp-fb:96 nack pli
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
m=application 0 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=bundle-only
a=mid:2
a=sctp-port:5000
a=max-message-size:262144
a=sctp-init:AQAAHh/NKJoAUAAA/////3AF76XAAAAEgAgABoLA
"""

FIREFOX_WITH_CANDIDATES = f"""v=0
o=mozilla...THIS_IS_SDPARTA-99.0 5185763429017458212 0 IN IP4 0.0.0.0
s=-
t=0 0
a=sendrecv
a=fingerprint:{SHA_256}
a=group:BUNDLE 0 1
a=ice-options:trickle
a=msid-semantic:WMS *
m=audio 58563 UDP/TLS/RTP/SAVPF 109 9 0 8 101
c=IN IP4 192.0.2.9
a=candidate:0 1 UDP 2122252543 192.0.2.9 58563 typ host
a=candidate:1 1 UDP 2122252542 5f6f8b8e-27bd-4a7c-8d5e-6a1f3d2e1c0b.local 58564 typ host
a=candidate:2 1 TCP 2105524479 192.0.2.9 9 typ host tcptype active
a=candidate:0 2 UDP 2122252542 192.0.2.9 49817 typ host
a=candidate:2 2 TCP 2105524478 192.0.2.9 9 typ host tcptype active
a=end-of-candidates
a=extmap:2/recvonly urn:ietf:params:rtp-hdrext:csrc-audio-level
a=extmap-allow-mixed
a=fmtp:109 maxplaybackrate=48000;stereo=1;useinbandfec=1
a=fmtp:101 0-15
a=ice-pwd:69a8b343f51eedae389ef0d244d29eda
a=ice-ufrag:8327ba8a
a=mid:0
a=msid:{{69aa6d96}} {{bd30c80a}}
a=rtcp:49817 IN IP4 192.0.2.9
a=rtcp-mux
a=rtpmap:109 opus/48000/2
a=rtpmap:9 G722/8000/1
a=rtpmap:101 telephone-event/8000
a=setup:actpass
m=application 0 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=bundle-only
a=sendrecv
a=ice-pwd:69a8b343f51eedae389ef0d244d29eda
a=ice-ufrag:8327ba8a
a=mid:1
a=setup:actpass
a=sctp-port:5000
a=max-message-size:1073741823
"""

# The fingerprint at the session, candidates twice (for both components), a very old way to say which ssrc is whose.
PION = f"""v=0
o=- 3527364985098726187 1764100000 IN IP4 0.0.0.0
s=-
t=0 0
a=msid-semantic:WMS *
a=fingerprint:{SHA_256.upper().replace("SHA-256", "sha-256")}
a=extmap-allow-mixed
a=group:BUNDLE 0 1
m=audio 9 UDP/TLS/RTP/SAVPF 111 9 0 8
c=IN IP4 0.0.0.0
a=setup:actpass
a=mid:0
a=ice-ufrag:XvKfFdZqRgWJtYbC
a=ice-pwd:{PWD}
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:9 G722/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=ssrc:2163422013 cname:pion
a=ssrc:2163422013 msid:pion audio
a=ssrc:2163422013 mslabel:pion
a=ssrc:2163422013 label:audio
a=msid:pion audio
a=sendrecv
a=candidate:1966762134 1 udp 2130706431 192.0.2.20 57114 typ host ufrag XvKfFdZqRgWJtYbC
a=candidate:1966762134 2 udp 2130706431 192.0.2.20 57114 typ host ufrag XvKfFdZqRgWJtYbC
a=candidate:233762139 1 udp 1694498815 198.51.100.20 57114 typ srflx raddr 0.0.0.0 rport 57114
a=end-of-candidates
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=setup:actpass
a=mid:1
a=sendrecv
a=sctp-port:5000
a=ice-ufrag:XvKfFdZqRgWJtYbC
a=ice-pwd:{PWD}
"""

WERIFT = f"""v=0
o=- 43847563 0 IN IP4 0.0.0.0
s=-
t=0 0
a=group:BUNDLE 0 1
a=msid-semantic:WMS *
m=audio 9 UDP/TLS/RTP/SAVPF 96 0
c=IN IP4 0.0.0.0
a=candidate:1f0b 1 udp 2130706431 192.0.2.30 40021 typ host
a=end-of-candidates
a=ice-ufrag:a1b2
a=ice-pwd:{"q" * 22}
a=ice-options:trickle
a=fingerprint:{SHA_256}
a=setup:actpass
a=sendrecv
a=mid:0
a=msid:s t
a=rtcp:9 IN IP4 0.0.0.0
a=rtcp-mux
a=rtpmap:96 OPUS/48000/2
a=rtpmap:0 PCMU/8000
a=ssrc:12345678 cname:werift
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=ice-ufrag:a1b2
a=ice-pwd:{"q" * 22}
a=fingerprint:{SHA_256}
a=setup:actpass
a=mid:1
a=sctp-port:5000
a=max-message-size:65536
"""

# Everything about the transport at the session, options with a comma, a second group of another kind.
LIBDATACHANNEL = f"""v=0
o=rtc 3767197920 0 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0
a=group:LS 0
a=msid-semantic:WMS *
a=setup:actpass
a=ice-ufrag:wkYI
a=ice-pwd:{"r" * 22}
a=ice-options:ice2,trickle
a=fingerprint:{SHA_256}
m=application 46417 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 192.0.2.40
a=mid:0
a=sendrecv
a=sctp-port:5000
a=max-message-size:262144
a=candidate:1 1 UDP 2122317823 192.0.2.40 46417 typ host
a=candidate:2 1 UDP 2122187007 2001:db8::40 46417 typ host
a=end-of-candidates
"""

GSTREAMER = f"""v=0
o=- 5268478325962837436 0 IN IP4 0.0.0.0
s=-
t=0 0
a=ice-options:trickle
a=group:BUNDLE audio0 application1
m=audio 9 UDP/TLS/RTP/SAVPF 97
c=IN IP4 0.0.0.0
a=setup:actpass
a=ice-ufrag:Kf9yqkzHtVWqUBMZL3pQ3PPtTcnq2u7X
a=ice-pwd:{"s" * 32}
a=rtcp-mux
a=rtcp-rsize
a=sendrecv
a=rtpmap:97 OPUS/48000/2
a=rtcp-fb:97 transport-cc
a=fmtp:97 sprop-maxcapturerate=48000;sprop-stereo=0
a=ssrc:3110384623 msid:user1 webrtctransceiver0
a=ssrc:3110384623 cname:user1
a=mid:audio0
a=fingerprint:{SHA_256}
a=rtcp-mux-only
m=application 0 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=setup:actpass
a=ice-ufrag:Kf9yqkzHtVWqUBMZL3pQ3PPtTcnq2u7X
a=ice-pwd:{"s" * 32}
a=bundle-only
a=mid:application1
a=sctp-port:5000
a=fingerprint:{SHA_256}
"""

# G.711 and nothing else, DTLS-SRTP under the old profile, no BUNDLE, no mid: a telephone gateway that has learnt WebRTC.
GATEWAY = f"""v=0
o=gateway 1764100000 1764100001 IN IP4 192.0.2.50
s=call
c=IN IP4 192.0.2.50
t=0 0
m=audio 40000 UDP/TLS/RTP/SAVP 0 101
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=ptime:20
a=ice-ufrag:gate
a=ice-pwd:{"t" * 24}
a=candidate:H1 1 UDP 2130706431 192.0.2.50 40000 typ host
a=fingerprint:{SHA_256.replace("sha-256", "SHA-256")}
a=setup:active
a=rtcp-mux
"""


class Shape(NamedTuple):
    offer: str
    ufrag: str
    codec: Codec | None
    payload_type: int | None
    event: int | None
    """Payload type of telephone events."""
    data: int | None
    """The peer's largest message."""
    candidates: int
    uses: tuple[str, ...]


SHAPES = {
    "chromium, max-bundle": Shape(
        CHROMIUM_MAX_BUNDLE, "Nm3q", OPUS, 111, 110, 262_144, 0, ("audio", "rejected", "data")
    ),
    "firefox, with candidates": Shape(
        FIREFOX_WITH_CANDIDATES, "8327ba8a", OPUS, 109, 101, 1_073_741_823, 1, ("audio", "data")
    ),
    "pion": Shape(PION, "XvKfFdZqRgWJtYbC", OPUS, 111, None, 65_536, 2, ("audio", "data")),
    "werift": Shape(WERIFT, "a1b2", OPUS, 96, None, 65_536, 1, ("audio", "data")),
    "libdatachannel": Shape(LIBDATACHANNEL, "wkYI", None, None, None, 262_144, 2, ("data",)),
    "gstreamer": Shape(GSTREAMER, "Kf9yqkzHtVWqUBMZL3pQ3PPtTcnq2u7X", OPUS, 97, None, 65_536, 0, ("audio", "data")),
    "gateway": Shape(GATEWAY, "gate", PCMU, 0, 101, None, 1, ("audio",)),
}


@pytest.mark.parametrize("ending", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("name", SHAPES)
def test_the_offer_of(respond: Callable[..., Answer], name: str, ending: str):
    shape = SHAPES[name]
    answered = respond(shape.offer.replace("\n", ending))
    assert tuple(section.use for section in answered.sections) == shape.uses
    assert answered.remote_ice.ufrag == shape.ufrag
    assert len(answered.remote_fingerprints) == 1
    assert len(answered.remote_candidates) == shape.candidates
    assert answered.role == "server"
    audio, data = answered.audio, answered.data
    assert (audio.codec if audio else None) is shape.codec
    assert (audio.payload_type if audio else None) == shape.payload_type
    assert (audio.telephone_event_payload_type if audio else None) == shape.event
    assert (data.remote_max_message_size if data else None) == shape.data
    offered, described = parse_untrusted(shape.offer), parse_untrusted(answered.sdp)
    assert len(described.media) == len(offered.media)
    for use, ours, theirs in zip(shape.uses, described.media, offered.media, strict=True):
        assert (ours.media, ours.protocol, ours.value("mid")) == (theirs.media, theirs.protocol, theirs.value("mid"))
        assert bool(ours.port) == (use != "rejected")
        assert set(ours.formats) <= set(theirs.formats)
        assert answers_only_what_was_offered(ours, theirs)


def answers_only_what_was_offered(ours: MediaSection, theirs: MediaSection) -> bool:
    optional = ("rtcp-rsize", "extmap-allow-mixed", "extmap", "rtcp-fb", "rtcp-xr", "tls-id", "bundle-only")
    # RFC 8858 §4.3: rtcp-mux-only has no place in an answer.
    return all(theirs.has(name) for name in optional if ours.has(name)) and not ours.has("rtcp-mux-only")
