"""Child processes of a measurement: each on the CPU it is given, ended with us, spoken to by lines of JSON."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from service.children import die_with_parent
from service.ready import parse_announcement

__all__ = ["ROOT", "BenchFailed", "Child", "clean_environment", "python"]

# Implementation constants, seconds
START_LIMIT = 30.0
STOP_PATIENCE = 5.0

ROOT = Path(__file__).resolve().parents[1]


class BenchFailed(Exception):
    """Nothing can be measured; the sentence says why."""


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def clean_environment() -> dict[str, str]:
    """Ours without any configuration: every run measures the defaults."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANTIPHON_")}
    return kept | {"ANTIPHON_LOG_LEVEL": "warning"}


class Child:
    """Use it as a context. `bound` is what its ready line said."""

    def __init__(
        self, name: str, command: list[str], environ: Mapping[str, str], *, cpu: int | None, stdin: bytes | None = None
    ) -> None:
        """Returns when it serves. `stdin` is all that it gets to read; without it `ask` can be used. Raises BenchFailed."""
        self.name = name
        self._heard = b""

        end_with_us = die_with_parent(signal.SIGKILL)

        def prepare() -> None:
            if end_with_us is not None:
                end_with_us()
            if cpu is not None:
                os.sched_setaffinity(0, {cpu})

        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=dict(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C is ours; we end it then
            preexec_fn=prepare,
        )
        try:
            if stdin is not None:
                assert self._process.stdin is not None
                self._process.stdin.write(stdin)
                self._process.stdin.close()
            bound = parse_announcement(self._read_line(START_LIMIT))
            if bound is None:
                raise BenchFailed(f"{name} did not say that it is ready")
        except BaseException:
            self.stop()
            raise
        self.bound: dict[str, Any] = bound

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def worker_pid(self) -> int:
        """Who does the work: the last in a line of only children, as of a relay with one worker; else the process itself."""
        pid = self.pid
        while len(children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()) == 1:
            pid = int(children[0])
        return pid

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def ask(self, question: Mapping[str, object], limit: float) -> dict[str, Any]:
        """One line of JSON there, one back. Raises BenchFailed."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(question) + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise BenchFailed(f"{self.name} is gone: {error.strerror}") from None
        answer: dict[str, Any] = msgspec.json.decode(self._read_line(limit))
        if "failed" in answer:
            raise BenchFailed(f"{self.name}: {answer['failed']}")
        return answer

    def kill(self) -> None:
        """With all its own children, and at once."""
        os.killpg(self.pid, signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        """End it and wait; safe to call again."""
        process = self._process
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)  # it may be stopped, in the middle of a round that failed
                process.send_signal(number)
            try:
                process.wait(STOP_PATIENCE)
            except subprocess.TimeoutExpired:
                continue
            break
        for stream in (process.stdin, process.stdout):
            if stream is not None and not stream.closed:
                with suppress(BrokenPipeError):
                    stream.close()

    def _read_line(self, limit: float) -> str:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        deadline = time.monotonic() + limit
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while b"\n" not in self._heard:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise BenchFailed(f"{self.name} said nothing for {limit:g} s")
                chunk = os.read(descriptor, 65536)
                if not chunk:
                    raise BenchFailed(f"{self.name} ended before its time; its reason is above")
                self._heard += chunk
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode("utf-8", "replace")
