"""One protocol peer in the test's own process, answering a browser: so that what each side says of the other can be compared.

No relay, no transceiver: a socket, a `Peer`, and a frame of silence every 20 ms while `talking`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import Any

import trio

from protocol.address import Path, TransportAddress, unpack_address
from protocol.agentlink import MediaRecord
from protocol.codecs import CODECS, Codec
from protocol.dtls import DtlsEndpoint, Identity, Role
from protocol.ice import Candidate, IceCredentials, IceLite
from protocol.peer import AudioParameters, AudioReceived, DtlsConnected, PathSelected, Peer, SendTo
from protocol.rtp import RtpPacket, ntp_from_unix
from protocol.sdp import Capabilities, NegotiatedAudio, Redundancy, answer, parse_untrusted, read_offer
from protocol.srtp import SERVER_PREFERENCE
from transceiver.media import Uplink
from udpio import Conditions, Shaper, open_udp

OFFER = """(async () => {
  const pc = window.pc = new RTCPeerConnection();
  const stream = await navigator.mediaDevices.getUserMedia({audio: true});
  for (const track of stream.getTracks()) pc.addTrack(track, stream);
  await pc.setLocalDescription(await pc.createOffer());
  return pc.localDescription.sdp;
})()"""
ANSWER = "(async () => { await pc.setRemoteDescription({type: 'answer', sdp: SDP}); return true; })()"
PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 15\r\nConnection: close\r\n\r\n<!DOCTYPE html>"


class DirectPeer:
    """`answer` an offer, then `run`. With `repair`, all that repairs losses is agreed on, and `uplink` puts in order what is
    heard; `network` is what lies between, each way."""

    def __init__(
        self,
        host: str,
        codecs: tuple[Codec, ...] = CODECS,
        *,
        repair: bool = False,
        red: Redundancy = "decline",
        network: Conditions = Conditions(),  # noqa: B008  (frozen)
    ) -> None:
        self.uplink: Uplink | None = None
        self.negotiated: NegotiatedAudio | None = None
        self._repair = repair
        self._red: Redundancy = red
        self._inward: Shaper[tuple[bytes, TransportAddress]] = Shaper(network, Random(5))
        self._outward: Shaper[tuple[bytes, TransportAddress]] = Shaper(network, Random(6))
        self.talking = True
        self.heard: list[RtpPacket] = []
        self.frames: list[MediaRecord] = []  # the same in order
        self.events: list[object] = []
        self.codec: Codec | None = None
        self.peer: Peer | None = None
        self._host = host
        self._codecs = codecs
        self._socket = open_udp(host, 0)
        self._timestamp = 0

    def answer(self, offer: str) -> str:
        identity = Identity.generate(datetime.now(UTC))
        _, port = unpack_address(self._socket.address)
        ours = Capabilities(
            ice=IceCredentials.generate(os.urandom),
            fingerprint=identity.fingerprint(),
            session_id=1,
            ssrc=int.from_bytes(os.urandom(4), "big"),
            cname="direct",
            candidates=(Candidate("1", 1, "udp", 1, self._host, port, "host"),),
            codecs=self._codecs,
            nack=self._repair,
            transport_cc=self._repair,
            red=self._red,
        )
        settled = answer(read_offer(parse_untrusted(offer)), ours)
        assert settled.audio is not None
        self.negotiated = audio = settled.audio
        self.codec = audio.codec
        self.peer = Peer(
            ice=IceLite(ours.ice, settled.remote_ice, entropy=os.urandom),
            dtls=DtlsEndpoint(
                Role(settled.role),
                identity,
                peer_fingerprints=settled.remote_fingerprints,
                srtp_profiles=SERVER_PREFERENCE,
                entropy=os.urandom,
            ),
            audio=AudioParameters(
                audio.payload_type,
                audio.codec.clock_rate,
                ours.ssrc,
                ours.cname,
                audio.telephone_event_payload_type,
                ntp_from_unix(time.time() - trio.current_time()),
                reduced_size=self._repair and audio.rtcp_rsize,
                transport_cc_id=audio.transport_cc_id,
                request=self._repair,
                resend=audio.nack,
            ),
            data=None,
            entropy=os.urandom,
        )
        self.uplink = Uplink(
            audio.payload_type,
            audio.codec.clock_rate,
            red_payload_type=audio.red_payload_type,
            codec=audio.codec,
            nack=self._repair,
            estimate=self.peer.path_estimate,
        )
        return settled.sdp

    async def run(self) -> None:
        assert self.peer is not None
        tick = trio.current_time()
        while True:
            uplink = self.uplink
            assert uplink is not None
            timers = (self.peer, uplink, self._inward, self._outward)
            with trio.move_on_at(min(tick, *(timer.next_timeout() for timer in timers))):
                await self._socket.wait_readable()
            for data, source in self._socket.receive_batch():
                self._inward.send((bytes(data), source), len(data), trio.current_time())
            now = trio.current_time()
            for datagram, source in self._inward.poll(now):
                self.peer.receive_untrusted(datagram, Path(b"", source), now)
                self._drain(self.peer)
            self.peer.handle_timeout(now)
            uplink.handle_timeout(now)
            self._request(self.peer, uplink, now)
            while tick <= now:
                tick += 0.02
                self._speak(self.peer, now)
            self._drain(self.peer)

    def _request(self, peer: Peer, uplink: Uplink, now: float) -> None:
        if sequences := uplink.take_requests(now):
            peer.request_audio(uplink.ssrc, sequences)
        self.frames += uplink.take(0)

    def _speak(self, peer: Peer, now: float) -> None:
        assert self.codec is not None
        self._timestamp += self.codec.frame_samples
        if self.talking:
            peer.send_audio(self.codec.silence, self._timestamp, now)

    def _drain(self, peer: Peer) -> None:
        now = trio.current_time()
        while outputs := peer.poll():
            for output in outputs:
                match output:
                    case SendTo():
                        self._outward.send((output.data, output.path.remote), len(output.data), now)
                        continue
                    case AudioReceived():
                        self.heard.append(output.packet)
                        assert self.uplink is not None
                        self.uplink.push(output.packet, now)
                        self._request(peer, self.uplink, now)
                        continue
                    case PathSelected():
                        peer.start_dtls(now)
                    case DtlsConnected():
                        peer.start_media()
                self.events.append(output)
        self._socket.send_batch(self._outward.poll(now))

    def close(self) -> None:
        self._socket.close()


@asynccontextmanager
async def empty_page() -> AsyncIterator[str]:
    """The address of a page from this machine itself, which may use the microphone."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(PAGE)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def direct_call(
    page,
    host: str,
    codecs: tuple[Codec, ...] = CODECS,
    offer: str = OFFER,
    **options: Any,  # noqa: ANN401
) -> AsyncIterator[DirectPeer]:
    """A browser's page in a call with a `DirectPeer`."""
    direct = DirectPeer(host, codecs, **options)
    try:
        async with empty_page() as url, trio.open_nursery() as nursery:
            await page.goto(url)
            text = direct.answer(await page.evaluate(offer))
            nursery.start_soon(direct.run)
            await page.evaluate(ANSWER.replace("SDP", json.dumps(text)))
            yield direct
            nursery.cancel_scope.cancel()
    finally:
        direct.close()
