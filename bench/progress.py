"""What is being done, on standard error: in place on a terminal, silent elsewhere."""

from __future__ import annotations

from rich.console import Console
from rich.status import Status

__all__ = ["Progress"]


class Progress:
    def __init__(self) -> None:
        console = Console(stderr=True)
        self._status: Status | None = console.status("") if console.is_terminal else None

    def __enter__(self) -> Progress:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def say(self, text: str) -> None:
        if self._status is not None:
            self._status.update(text)
