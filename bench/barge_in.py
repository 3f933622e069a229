"""`just bench voice`, its first part: how soon who speaks over the agent has silence in the ear, and whether the agent knows
what was heard.

A real Chromium is the caller (`tests/conformance/barge_in.py`): the voice is spoken in its page's audio graph, and the
agent's tone is measured in that graph, so both moments are on one clock. The agent tells a long story; at a random moment of it
the voice sets in.

detection   voice → `input_audio_buffer.speech_started` is there: encoder, network, the detector's own patience
signalling  → the last packet of the tone came: the flush on its way through agent, transceiver and relay. It is negative when
            that packet came before the event
playout     → silence: what Chromium had in its jitter buffer, and what it makes up when nothing follows

The browser knows when the last packet of all came. The last HUSH_FRAMES are of silence, one each 20 ms: the transceiver sends
them after a flush. What is told as heard (`conversation.item.truncated`) is compared with what arrived before these (20 ms for
each packet), and with how long the tone really sounded, less what the browser stretched of it, and more what it shortened.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Section, percentile
from bench.processes import ROOT, BenchFailed, Child, clean_environment, python
from bench.progress import Progress
from loadgen.ownstack import StackFailed, own_stack
from transceiver.media.downlink import HUSH_FRAMES

__all__ = ["BargeInOptions", "measure_barge_in"]

# Specification constants
CALLS_PATH = "v1/realtime/calls"
FRAME_MS = 20

# Implementation constants
CALLER = ROOT / "tests" / "conformance" / "barge_in.py"
AGENT = "realtime_agent:agent"
EARLIEST, LATEST = 0.8, 2.2  # seconds of the story until the voice sets in
SEED = 5
LIMIT = 60.0  # seconds for one interruption
HEARD_BAR = 40.0  # ms by which what is told as heard may be wrong

SPLIT = "voice over the agent → silence in the ear"
WHOLE, DETECTION, SIGNALLING, PLAYOUT = "whole", "detection", "signalling", "playout"
TOLD = "heard as told, against the truth"
RECEIVED, SOUNDED = "against what arrived", "against how long it sounded"


@dataclass(frozen=True, slots=True)
class BargeInOptions:
    interruptions: int


def measure_barge_in(options: BargeInOptions, progress: Progress) -> Section:
    """Raises BenchFailed."""
    section = Section(title=f"barge-in: {options.interruptions} interruptions, heard in Chromium")
    rows = _interruptions(options, progress)
    hush = HUSH_FRAMES * FRAME_MS
    last = [row["last_packet_ms"] - hush for row in rows]
    for name, split in (
        (WHOLE, [row["silent_ms"] for row in rows]),
        (DETECTION, [row["speech_started_ms"] for row in rows]),
        (SIGNALLING, [at - row["speech_started_ms"] for row, at in zip(rows, last, strict=True)]),
        (PLAYOUT, [row["silent_ms"] - at for row, at in zip(rows, last, strict=True)]),
    ):
        for value in split:
            section.add(SPLIT, name, "ms", value)
        section.add(SPLIT, f"{name}, p99", "ms", percentile(split, 0.99))
    received = [row["told_ms"] - row["packets"] * FRAME_MS + hush for row in rows]
    sounded = [row["told_ms"] - (row["ear_ms"] - row["inserted_ms"] + row["removed_ms"]) for row in rows]
    for name, errors in ((RECEIVED, received), (SOUNDED, sounded)):
        for error in errors:
            section.add(TOLD, name, "ms", error)
        section.add(TOLD, f"{name}, the worst", "ms", max(map(abs, errors)))
        section.hold(TOLD, f"{name}, the worst", HEARD_BAR)
    return section


def _interruptions(options: BargeInOptions, progress: Progress) -> list[dict[str, float]]:
    environ = clean_environment() | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(Path(CALLER).parent)))}
    chance = random.Random(SEED)
    rows = []
    try:
        with own_stack(AGENT, environ) as stack, Child("caller", python(str(CALLER)), environ, cpu=None) as caller:
            caller.ask({"do": "call", "url": stack.url + CALLS_PATH}, LIMIT)
            for number in range(options.interruptions):
                progress.say(f"barge-in {number + 1} of {options.interruptions}")
                after = chance.uniform(EARLIEST, LATEST)
                rows.append(caller.ask({"do": "interrupt", "after": after, "voice": number}, LIMIT))
    except StackFailed as failed:
        raise BenchFailed(str(failed)) from None
    return rows
