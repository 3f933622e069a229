"""`python -m relay run` as a process of its own, and what its admin port and the kernel say about it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from protocol.routing import RoutingConfig

ROOT = Path(__file__).parents[1]
ROUTING = RoutingConfig(keys=("1:" + "5a" * 32,), trunk_keys=("a5" * 32,))


def environment(**settings: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ANTIPHON_")}
    return clean | {
        "ANTIPHON_ROUTING_KEYS": ROUTING.keys[0],
        "ANTIPHON_ROUTING_TRUNK_KEYS": ROUTING.trunk_keys[0],
        "ANTIPHON_RELAY_LISTEN": "127.0.0.1:0",
        "ANTIPHON_RELAY_TRUNK": "127.0.0.1:0",
        **settings,
    }


def run_relay(command: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A command of the relay that ends by itself."""
    arguments = [sys.executable, "-m", "relay", command]
    return subprocess.run(arguments, cwd=ROOT, env=variables, capture_output=True, text=True, check=False, timeout=60)


def waited(*pids: int) -> float:
    """Seconds for which threads of these processes were ready to run and others ran."""
    threads = [path for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(path.read_text().split()[1]) for path in threads) / 1e9


class RelayProcess:
    """It serves when it is made."""

    def __init__(self, *arguments: str, **settings: str) -> None:
        self.settings = settings
        self.process = subprocess.Popen(
            [sys.executable, "-m", "relay", "run", *arguments],
            cwd=ROOT,
            env=environment(**settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.bound: dict[str, Any] = json.loads(line.removeprefix("ready "))

    @property
    def listen(self) -> str:
        return str(self.bound["listen"][0])

    def kill(self) -> None:
        """All of it at once, by SIGKILL to the supervisor; returns when it is gone."""
        self.process.kill()
        self.process.communicate()

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.bound['admin']}/healthz").json()
        return found

    def metrics(self) -> dict[str, float]:
        lines = httpx.get(f"{self.bound['admin']}/metrics").text.splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}

    def upgrade(self, **settings: str) -> subprocess.CompletedProcess[str]:
        """`relay upgrade`, as an operator types it."""
        listen = ",".join(self.bound["listen"])
        return run_relay("upgrade", environment(**self.settings | {"ANTIPHON_RELAY_LISTEN": listen} | settings))

    def stop(self) -> tuple[int, str]:
        """Exit status and what it logged."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=10)
        return self.process.returncode, errors


@contextmanager
def relay_process(*arguments: str, **settings: str) -> Iterator[RelayProcess]:
    relay = RelayProcess(*arguments, **settings)
    try:
        yield relay
    finally:
        relay.kill()
