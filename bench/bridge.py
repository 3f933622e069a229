"""What a bridged call costs its agent: `python -m bench.bridge`. CPU ms for each second of sound, one way.

up     a caller's frames are decoded, gathered, resampled, put into base64 and JSON, and written to a WebSocket (without TLS)
down   the service's messages are unframed, read, decoded, resampled, encoded

The parts are those of the bridge (agent/upstream), without the call's link and, downwards, the socket. Each figure is the
median of the rounds; rounds of all lengths are interleaved.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable
from functools import partial

import numpy as np
import trio
import wsproto
from wsproto.connection import Connection, ConnectionType
from wsproto.events import AcceptConnection, Request, TextMessage

from agent.codecs import open_decoder, open_encoder
from agent.codecs.opus import find_opus
from agent.events import Frame
from agent.upstream.audio import Ear, Mouth
from agent.upstream.events import decode_service_event_untrusted
from agent.upstream.playing import Playing
from agent.upstream.sound import RATE
from agent.upstream.statistics import UpstreamStatistics
from agent.upstream.uplink import Uplink
from protocol.codecs import OPUS, PCMU, Codec
from service.websocket import connect

__all__ = ["main"]

PIECES_UP = (20, 40, 60, 100)
PIECES_DOWN = (20, 100, 200)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.bridge", description="CPU ms for each second of a bridged call's sound."
    )
    parser.add_argument("--seconds", type=int, default=20, help="of sound in a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="(default: %(default)s)")
    options = parser.parse_args()
    codecs = [OPUS, PCMU] if find_opus() is not None else [PCMU]
    runs: dict[tuple[str, str, int], Callable[[], float]] = {}
    for codec in codecs:
        for piece in PIECES_UP:
            runs["up", codec.name, piece] = lambda codec=codec, piece=piece: _up(codec, piece, options.seconds)  # type: ignore[misc]
        for piece in PIECES_DOWN:
            runs["down", codec.name, piece] = lambda codec=codec, piece=piece: _down(codec, piece, options.seconds)  # type: ignore[misc]
    figures: dict[tuple[str, str, int], list[float]] = {run: [] for run in runs}
    for _ in range(options.rounds):
        for run, measure in runs.items():
            figures[run].append(measure())
    for (way, name, piece), values in figures.items():
        low, high = min(values), max(values)
        print(f"{way:5}{name:6}{piece:4} ms a message  {statistics.median(values):6.2f} ms/s  ({low:.2f} – {high:.2f})")


def _sound(rate: int, seconds: int) -> bytes:
    """Something that takes an encoder some trouble: a voice's harmonics, and noise."""
    moments = np.arange(rate * seconds) / rate
    pitch = 2 * np.pi * np.cumsum(120 + 20 * np.sin(2 * np.pi * 0.7 * moments)) / rate
    voice = sum(np.sin(number * pitch) / number for number in range(1, 15)) * (
        0.6 + 0.4 * np.sin(2 * np.pi * 3 * moments)
    )
    noise = np.random.default_rng(5).normal(0, 0.05, len(moments))
    return bytes((6000 * (voice + noise)).clip(-32768, 32767).astype(np.int16).tobytes())


def _up(codec: Codec, piece_ms: int, seconds: int) -> float:
    encoder = open_encoder(codec)
    size = encoder.frame_samples * 2
    pcm = _sound(encoder.rate, seconds)
    frames = [Frame(encoder.encode(pcm[at : at + size]), 0, 20.0) for at in range(0, len(pcm), size)]
    return trio.run(_write_up, codec, piece_ms, frames) * 1000 / seconds


async def _write_up(codec: Codec, piece_ms: int, frames: list[Frame]) -> float:
    """CPU seconds of this process. What is written is read by another."""
    near, far = socket.socketpair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, _accept, far)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(near))
        connection = await connect(nursery, stream, "bench", "/", max_message_bytes=1 << 20)
        cat = partial(trio.run_process, ["cat"], stdin=far, stdout=subprocess.DEVNULL, check=False)
        reader: trio.Process = await nursery.start(cat)
        ear = Ear(open_decoder(codec))
        uplink = Uplink(ear.rate, UpstreamStatistics(), lambda: None, piece_ms)
        uplink.open([])
        began = time.process_time()
        for number, frame in enumerate(frames):
            uplink.hear(ear.hear(frame, number * 0.02))
            while messages := uplink.take():
                await connection.send(messages)
        spent = time.process_time() - began
        reader.kill()
        nursery.cancel_scope.cancel()
    far.close()
    return spent


def _accept(sock: socket.socket) -> None:
    """The service's side of the upgrade."""
    server = wsproto.WSConnection(ConnectionType.SERVER)
    while not any(isinstance(event, Request) for event in server.events()):
        server.receive_data(sock.recv(65536))
    sock.sendall(server.send(AcceptConnection()))


def _down(codec: Codec, piece_ms: int, seconds: int) -> float:
    server = Connection(ConnectionType.SERVER)
    pcm, size = _sound(RATE, seconds), RATE * piece_ms // 1000 * 2
    place = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0}
    wire = []
    for at in range(0, len(pcm), size):
        delta = b64encode(pcm[at : at + size]).decode()
        event = {"type": "response.output_audio.delta", "event_id": "event_1", **place, "delta": delta}
        wire.append(server.send(TextMessage(data=json.dumps(event))))
    client = Connection(ConnectionType.CLIENT)
    playing = Playing(1 << 30, lambda kind, response_id: None)
    mouth = Mouth(open_encoder(codec))
    frames = 0
    began = time.process_time()
    for data in wire:
        client.receive_data(data)
        text = ""
        for message in client.events():
            assert isinstance(message, TextMessage)
            text += message.data
        playing.put_sound_untrusted(decode_service_event_untrusted(text), 1)
        while (piece := playing.take()) is not None:
            for _ in mouth.speak(piece.sound, piece.pcm):
                playing.sounding(piece.sound, frames * 20.0, 20.0)
                frames += 1
            playing.sent(piece)
            playing.play_to(frames * 20.0)
    spent = time.process_time() - began
    assert frames >= seconds * 49
    return spent * 1000 / seconds


if __name__ == "__main__":
    main()
