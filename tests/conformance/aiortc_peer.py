"""An aiortc caller, in a process of its own (it is asyncio): offers, talks, sends data, and prints what it heard as JSON
(after a line that says when it talks).

python aiortc_peer.py http://127.0.0.1:8080/ SECONDS [SETUP [hold|negotiated]]

SETUP is what it offers as a=setup: actpass, or active or passive to insist on a role in the DTLS handshake. With `hold` it
holds the call before it hangs up, by a further offer, and says how many frames came nevertheless. With `negotiated` it opens
its data channel without asking, on a stream that it names by `?dcid=`.
"""

from __future__ import annotations

import asyncio
import fractions
import itertools
import json
import os
import sys
import time

import aioice.ice
import av
import httpx
import numpy as np
from aiortc import AudioStreamTrack, RTCPeerConnection, RTCSessionDescription

# aioice leaves loopback out; these tests stay on it, or in a network of their own.
ADDRESS = os.environ.get("AIORTC_ADDRESS", "127.0.0.1")
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: [ADDRESS]

RATE = 48_000
FRAME = 960
TONE_HERTZ = 700
STREAM = 5

MESSAGES: dict[str, str | bytes] = {
    "text": "grüße von aiortc",
    "binary": bytes(range(256)),
    "empty text": "",
    "empty binary": b"",
    "64 KiB": b"\xa5" * 65_536,
    "64 KiB of text": "x" * 65_536,
}


class Tone(AudioStreamTrack):
    """A sine in 20 ms frames."""

    async def recv(self) -> av.AudioFrame:
        silence = await super().recv()
        start = silence.pts * RATE // silence.sample_rate
        samples = (12_000 * np.sin(2 * np.pi * TONE_HERTZ * (start + np.arange(FRAME)) / RATE)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = RATE
        frame.pts = start
        frame.time_base = fractions.Fraction(1, RATE)
        return frame


async def listen(track, heard: list[np.ndarray], times: list[float]) -> None:
    while True:
        frame = await track.recv()
        times.append(time.monotonic())
        samples = frame.to_ndarray().astype(float).reshape(-1)
        heard.append(samples[:: len(frame.layout.channels)])


async def hold(client: httpx.AsyncClient, peer: RTCPeerConnection, place: str, heard: list[np.ndarray]) -> int:
    peer.getTransceivers()[0].direction = "inactive"
    await peer.setLocalDescription(await peer.createOffer())
    headers = {"Content-Type": "application/sdp"}
    response = await client.post(place, content=peer.localDescription.sdp, headers=headers)
    response.raise_for_status()
    await peer.setRemoteDescription(RTCSessionDescription(sdp=response.text, type="answer"))
    await asyncio.sleep(1)
    before = len(heard)
    await asyncio.sleep(0.5)
    return len(heard) - before


async def talk(url: str, seconds: float, setup: str) -> dict[str, object]:
    peer = RTCPeerConnection()
    peer.addTrack(Tone())
    negotiated = {"negotiated": True, "id": STREAM} if "negotiated" in sys.argv else {}
    channel = peer.createDataChannel("oai-events", **negotiated)
    heard: list[np.ndarray] = []
    times: list[float] = []
    listeners = []
    opened = asyncio.Event()
    inbox: asyncio.Queue[str | bytes] = asyncio.Queue()
    peer.on("track", lambda track: listeners.append(asyncio.ensure_future(listen(track, heard, times))))
    channel.on("open", opened.set)
    channel.on("message", inbox.put_nowait)

    await peer.setLocalDescription(await peer.createOffer())
    async with httpx.AsyncClient() as client:
        response = await client.post(
            url + "v1/realtime/calls" + (f"?dcid={STREAM}" if negotiated else ""),
            content=peer.localDescription.sdp.replace("a=setup:actpass", f"a=setup:{setup}"),
            headers={"Content-Type": "application/sdp"},
        )
        response.raise_for_status()
        await peer.setRemoteDescription(RTCSessionDescription(sdp=response.text, type="answer"))
        await asyncio.wait_for(opened.wait(), 10)

        echoed = {}
        for name, message in MESSAGES.items():
            channel.send(message)
            answer = await asyncio.wait_for(inbox.get(), 10)
            echoed[name] = type(answer) is type(message) and answer == message
        print("talking", flush=True)
        await asyncio.sleep(seconds)
        place = url.rstrip("/") + response.headers["Location"]
        held = await hold(client, peer, place, heard) if "hold" in sys.argv else None
        hung_up = await client.post(place + "/hangup")

    samples = np.concatenate(heard)[-RATE:] if heard else np.zeros(1)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    result = {
        "role": peer.sctp.transport._role,
        "hertz": float(np.argmax(spectrum) * RATE / len(samples)),
        "seconds": sum(map(len, heard)) / RATE,
        "longest_gap": max((after - before for before, after in itertools.pairwise(times)), default=0.0),
        "echoed": echoed,
        "frames_held": held,
        "hangup": hung_up.status_code,
    }
    for listener in listeners:
        listener.cancel()
    await peer.close()
    return result


if __name__ == "__main__":
    print(json.dumps(asyncio.run(talk(sys.argv[1], float(sys.argv[2]), (*sys.argv[3:], "actpass")[0]))))
