"""Offers to work with: what real browsers and aiortc sent, and a small one that a test can spoil line by line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from protocol.dtls.fingerprint import Fingerprint
from protocol.ice.candidate import Candidate
from protocol.ice.credentials import IceCredentials
from protocol.sdp import Answer, Capabilities, answer, parse_untrusted, read_offer

VECTORS = Path(__file__).parents[2] / "vectors"
CAPTURED = {path.name.removesuffix(".offer.sdp"): path for path in sorted(VECTORS.glob("*.offer.sdp"))}
CAPTURED["aiortc"] = Path(__file__).parent / "aiortc.offer.sdp"

SESSION = """v=0
o=- 1 2 IN IP4 127.0.0.1
s=-
t=0 0
"""
TRANSPORT = f"""a=ice-ufrag:abcd
a=ice-pwd:{"p" * 24}
a=fingerprint:sha-256 {":".join(["AB"] * 32)}
a=setup:actpass
"""
AUDIO = f"""m=audio 9 UDP/TLS/RTP/SAVPF 111 0 8 126
c=IN IP4 0.0.0.0
{TRANSPORT}a=mid:0
a=sendrecv
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=rtpmap:126 telephone-event/8000
"""
DATA = f"""m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
{TRANSPORT}a=mid:1
a=sctp-port:5000
a=max-message-size:262144
"""
VIDEO = f"""m=video 9 UDP/TLS/RTP/SAVPF 96
c=IN IP4 0.0.0.0
{TRANSPORT}a=mid:2
a=rtcp-mux
a=rtpmap:96 VP8/90000
"""
BOTH = f"{SESSION}a=group:BUNDLE 0 1\n{AUDIO}{DATA}"

CAPABILITIES = Capabilities(
    ice=IceCredentials("S" * 48, "w" * 32),
    fingerprint=Fingerprint("sha-256", bytes(range(32))),
    session_id=42,
    ssrc=4242,
    cname="antiphon",
    candidates=(Candidate.parse_untrusted("1 1 udp 2130706431 203.0.113.7 3478 typ host"),),
)


@pytest.fixture(params=sorted(CAPTURED))
def captured(request: pytest.FixtureRequest) -> str:
    """Each offer of a real client."""
    return CAPTURED[request.param].read_bytes().decode()


@pytest.fixture
def capabilities() -> Capabilities:
    return CAPABILITIES


@pytest.fixture
def respond() -> Callable[..., Answer]:
    """The answer to an offer's text."""

    def respond(text: str | bytes, capabilities: Capabilities = CAPABILITIES) -> Answer:
        return answer(read_offer(parse_untrusted(text)), capabilities)

    return respond


@pytest.fixture
def parts() -> dict[str, str]:
    return {"session": SESSION, "audio": AUDIO, "data": DATA, "video": VIDEO, "both": BOTH}
