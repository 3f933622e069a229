"""One target in a process of its own, under atheris: `python -m fuzz.child NAME [libFuzzer's arguments]`."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["protocol", "relay"], enable_loader_override=False):
    from fuzz.targets import TARGETS


def main() -> None:
    name, *arguments = sys.argv[1:]
    (target,) = (target for target in TARGETS if target.name == name)
    atheris.Setup([sys.argv[0], f"-max_len={target.maximum}", *arguments], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
