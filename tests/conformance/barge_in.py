"""A caller in Chromium who speaks over the agent, in a process of its own; told what to do by lines of JSON, as `bench/` does.

    PYTHONPATH=. python tests/conformance/barge_in.py

{"do": "call", "url": …}       places a call
{"do": "interrupt", "after": seconds, "voice": number}      what was measured, in milliseconds (barge_in.html)

The voice is synthetic: one vowel after another through moving resonances, at several pitches; its first sample is its first
voiced one. It comes from the page's own audio graph, so that its moment is known on the clock by which the ear listens.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parent))

import browsers
from realtime_page import serve_page

from service.ready import announce, stop_signals

RATE = 48_000
SECONDS = 0.6
PITCHES = (95, 120, 150, 190, 230)  # hertz


def voice(pitch: float) -> list[int]:
    """A word, loud from its first sample on."""
    import numpy as np

    time = np.arange(round(RATE * SECONDS)) / RATE
    phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.15 * np.sin(2 * np.pi * 1.3 * time))) / RATE
    first, second = 450 + 300 * np.sin(2 * np.pi * 1.7 * time), 1500 + 500 * np.cos(2 * np.pi * 1.1 * time)
    sound = np.zeros_like(time)
    for harmonic in range(1, int(4000 / pitch)):
        at = pitch * harmonic
        loudness = np.exp(-(((at - first) / 250) ** 2)) + 0.6 * np.exp(-(((at - second) / 300) ** 2)) + 0.03
        sound += loudness * np.sin(harmonic * phase)
    sound *= 0.6 + 0.4 * np.cos(2 * np.pi * 4 * time)
    return [int(value) for value in 9000 * sound / np.abs(sound).max()]


async def main() -> None:
    """Until standard input ends, or a signal says so: either way the browser ends with us."""
    with stop_signals() as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_on_signal, signals, nursery.cancel_scope)
            await obey()
            nursery.cancel_scope.cancel()


async def end_on_signal(signals, scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


async def obey() -> None:
    if browsers.CHROMIUM is None:
        sys.exit("barge_in: Chromium is not installed")
    sounds = json.dumps([{"rate": RATE, "samples": voice(pitch)} for pitch in PITCHES])
    async with serve_page("barge_in.html") as url, browsers.open_chromium() as page:
        await page.goto(url)
        await page.wait_for("window.ready")
        announce(browser="chromium")
        async for line in lines():
            order = json.loads(line)
            try:
                if order["do"] == "call":
                    answer = await page.evaluate(f"open_call({json.dumps(order['url'])}, {sounds})")
                    answer = {"base_latency_ms": answer * 1000}
                else:
                    which = order["voice"] % len(PITCHES)
                    answer = await page.evaluate(f"interrupt({which}, {json.dumps(order['after'])})")
            except (browsers.BrowserError, AssertionError) as error:
                answer = {"failed": str(error)}
            print(json.dumps(answer), flush=True)


async def lines():
    """Of standard input."""
    async with trio.lowlevel.FdStream(0) as stream:
        waiting = b""
        async for chunk in stream:
            *whole, waiting = (waiting + chunk).split(b"\n")
            for line in whole:
                yield line


if __name__ == "__main__":
    trio.run(main)
