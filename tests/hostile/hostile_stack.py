"""A whole stack of real processes on ports and keys that the tests know, and what its admin ports say."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from processes import children_of

from protocol.routing import RoutingConfig

ROOT = Path(__file__).parents[2]
KEY, TRUNK_KEY = "11" * 32, "22" * 32
ROUTING = RoutingConfig(keys=(f"1:{KEY}",), trunk_keys=(TRUNK_KEY,), prefix="127.0.0.1/32")
STOP_SECONDS = 15


def free_port(kind: int) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LiveStack:
    """`python -m stack`; everything on 127.0.0.1, only that one address is inside the prefix."""

    def __init__(self, *prefix: str, **environment: str) -> None:
        """`prefix`: a command that runs another, like unshare(1)."""
        udp, tcp = socket.SOCK_DGRAM, socket.SOCK_STREAM
        self.relay = ("127.0.0.1", free_port(udp))
        self.trunk = ("127.0.0.1", free_port(udp))
        self.transceiver = ("127.0.0.1", free_port(udp))
        self.relay_admin = f"127.0.0.1:{free_port(tcp)}"
        self.transceiver_admin = f"127.0.0.1:{free_port(tcp)}"
        variables = {key: value for key, value in os.environ.items() if not key.startswith("ANTIPHON_")}
        variables |= {
            "ANTIPHON_STACK_PORT": "0",
            "ANTIPHON_STACK_AGENT": "echo",
            "ANTIPHON_STACK_UDP_PORT": str(self.relay[1]),
            "ANTIPHON_STACK_PUBLIC_ADDRESS": "127.0.0.1",
            "ANTIPHON_RELAY_TRUNK": f"127.0.0.1:{self.trunk[1]}",
            "ANTIPHON_RELAY_ADMIN": self.relay_admin,
            "ANTIPHON_TRANSCEIVER_LISTEN": f"127.0.0.1:{self.transceiver[1]}",
            "ANTIPHON_TRANSCEIVER_ADMIN": self.transceiver_admin,
            "ANTIPHON_ROUTING_KEYS": ROUTING.keys[0],
            "ANTIPHON_ROUTING_TRUNK_KEYS": TRUNK_KEY,
            "ANTIPHON_ROUTING_PREFIX": ROUTING.prefix,
        }
        self._log = (Path(os.environ.get("PYTEST_TMP", "/tmp")) / f"antiphon-hostile-{os.getpid()}.log").open("w+b")
        Path(self._log.name).unlink()  # it goes when we go
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "stack"],
            cwd=ROOT,
            env=variables | environment,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        found = re.fullmatch(r"ready (http://\S+)/\n", line)
        assert found is not None, line or self.log()
        self.url = found[1]
        parts = urlsplit(self.url)
        self.http = (str(parts.hostname), int(parts.port or 0))

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def children(self) -> dict[str, int]:
        """Package → process id."""
        return children_of(self.process.pid)

    def zombies(self) -> int:
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        states = []
        for pid in pids:
            with suppress(FileNotFoundError, ProcessLookupError):  # it ended while we looked
                states.append(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0])
        return states.count("Z")

    def kill(self, package: str) -> int:
        pid = self.children()[package]
        os.kill(pid, signal.SIGKILL)
        return pid

    def memory(self, package: str) -> int:
        """Resident bytes."""
        pages = Path(f"/proc/{self.children()[package]}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGESIZE")

    def metrics(self, admin: str) -> dict[str, float]:
        lines = httpx.get(f"http://{admin}/metrics", timeout=5).text.splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}

    def flows(self) -> tuple[float, float]:
        """(established, probationary) at the relay."""
        metrics = self.metrics(self.relay_admin)
        return tuple(metrics[f'antiphon_relay_flows{{state="{state}"}}'] for state in ("established", "probationary"))  # type: ignore[return-value]

    def relay_drops(self) -> dict[str, float]:
        prefix = 'antiphon_relay_drops_total{reason="'
        metrics = self.metrics(self.relay_admin)
        return {name[len(prefix) : -2]: value for name, value in metrics.items() if name.startswith(prefix)}

    def stop(self) -> float:
        """End it by SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)


@contextmanager
def live_stack(*prefix: str, **environment: str) -> Iterator[LiveStack]:
    stack = LiveStack(*prefix, **environment)
    try:
        yield stack
        assert stack.stop() == 0
    finally:
        if stack.process.poll() is None:
            stack.process.kill()
            stack.process.wait()
        if stack.process.stdout is not None:
            stack.process.stdout.close()
        stack._log.close()
