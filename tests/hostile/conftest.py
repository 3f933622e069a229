"""Attackers for every door: mutated traffic in virtual time (`hostile_rig`), and a whole stack of real processes."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
for folder in (
    HERE,
    HERE.parent / "conformance",
):  # the rig of this folder, and the stack that the conformance tests start
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
