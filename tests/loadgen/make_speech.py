"""Makes `loadgen/speech.hex`: a second of Opus, with in-band FEC and without, from libopus (which must be installed).

    python tests/loadgen/make_speech.py > loadgen/speech.hex

What is encoded is no recording: pulses at a changing pitch through three resonances that move, louder and softer, as a voice
would say one vowel after another. Encoder: 16 kHz, mono, 20 ms, application VOIP, signal voice, 24 kbit/s, SILK; FEC for
25 % of loss expected. libopus makes no copy of a frame that it takes for a pause. Packets without one are left out here, so
that whether a lost frame can be had from the next packet is a question of the network alone.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import math
import struct
import sys

RATE, FRAME, FRAMES = 16_000, 320, 75
KEPT = 40
APPLICATION_VOIP, SIGNAL_VOICE, WIDEBAND = 2048, 3001, 1103
SET_BITRATE, SET_BANDWIDTH, SET_INBAND_FEC, SET_PACKET_LOSS_PERC, SET_SIGNAL = 4002, 4008, 4012, 4014, 4024
VOWELS = ((700, 1220, 2600), (500, 1900, 2550), (300, 2300, 3000), (450, 800, 2830), (310, 870, 2250))


def voice() -> list[int]:
    samples, states, phase = [], [[0.0, 0.0] for _ in range(3)], 0.0
    for index in range(FRAME * FRAMES):
        at = index / (FRAME * FRAMES) * len(VOWELS)
        first, second, part = VOWELS[int(at) % 5], VOWELS[(int(at) + 1) % 5], at % 1
        phase += (120 + 30 * math.sin(index / 2500)) / RATE
        value = 1.0 if phase >= 1 else 0.0
        phase %= 1
        for state, one, other in zip(states, first, second, strict=True):
            radius, angle = 0.97, 2 * math.pi * (one + (other - one) * part) / RATE
            value += 2 * radius * math.cos(angle) * state[0] - radius * radius * state[1]
            state[0], state[1] = value, state[0]
        samples.append(value * (0.6 + 0.4 * math.sin(index / 800)))
    loudest = max(map(abs, samples))
    return [int(12_000 * value / loudest) for value in samples]


def encode(samples: list[int], *, fec: bool) -> list[bytes]:
    name = ctypes.util.find_library("opus")
    if name is None:
        sys.exit("make_speech: libopus is not installed")
    opus = ctypes.CDLL(name)
    opus.opus_encoder_create.restype = ctypes.c_void_p
    error = ctypes.c_int()
    encoder = ctypes.c_void_p(opus.opus_encoder_create(RATE, 1, APPLICATION_VOIP, ctypes.byref(error)))
    for request, value in (
        (SET_BITRATE, 24_000),
        (SET_BANDWIDTH, WIDEBAND),
        (SET_SIGNAL, SIGNAL_VOICE),
        (SET_INBAND_FEC, int(fec)),
        (SET_PACKET_LOSS_PERC, 25 if fec else 0),
    ):
        assert opus.opus_encoder_ctl(encoder, request, ctypes.c_int(value)) == 0
    packets, out = [], ctypes.create_string_buffer(1500)
    for index in range(FRAMES):
        pcm = struct.pack(f"={FRAME}h", *samples[index * FRAME : (index + 1) * FRAME])
        length = opus.opus_encode(encoder, pcm, FRAME, out, len(out))
        assert length > 0, length
        packets.append(out.raw[:length])
    return [packet for packet in packets if packet[1] & 0x40 or not fec][:KEPT]  # RFC 6716 §4.2.3: VAD flag, LBRR flag


def main() -> None:
    samples = voice()
    print("# Opus packets of 20 ms, one a line; made by tests/loadgen/make_speech.py")
    for fec in (True, False):
        print("# with in-band FEC" if fec else "# without")
        for packet in encode(samples, fec=fec):
            print(packet.hex())


if __name__ == "__main__":
    main()
