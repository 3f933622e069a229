"""`just soak-calls`: ten minutes of 300 calls, with defaults of its own; a page and JSON are always written."""

from __future__ import annotations

import sys
from pathlib import Path

from loadgen.__main__ import main
from loadgen.options import Preset

# Implementation constants
FOLDER = Path(__file__).resolve().parents[1] / "run"  # of the checkout, which git ignores: it is never in the way

SOAK_CALLS = Preset(
    prog="just soak-calls",
    description="Ten minutes of 300 calls on a stack of its own: late frames, memory of every process, flat or not. "
    "Besides the table it always writes a page and JSON.",
    calls=300,
    seconds=600.0,
    agent="meter",
    soak=True,
    report=str(FOLDER / "soak-calls.html"),
    json=str(FOLDER / "soak-calls.json"),
)

if __name__ == "__main__":
    if not {"-h", "--help"} & set(sys.argv):
        FOLDER.mkdir(exist_ok=True)
    sys.exit(main(SOAK_CALLS))
