"""A caller behind a NAT that forgets: three network namespaces of the test's own, which vanish with it.

    caller (this process)          NAT                              server (the stack)
    10.99.1.2  ───────────  10.99.1.254 | 10.99.2.254, .253  ───────────  10.99.2.1

The kernel translates UDP. `rebind` gives the caller another port, or another address, and forgets the old one, as a home
router does that was restarted, or a phone that changes networks. TCP is routed without translation, so that HTTP goes on.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial

import namespace
import trio

SERVER = "10.99.2.1"
CALLER = "10.99.1.2"
OUTSIDE = ("10.99.2.254", "10.99.2.253")
TOOLS = {"nft": "nftables", "conntrack": "conntrack", "nsenter": "util-linux", "ip": "iproute2"}

RULES = """\
flush ruleset
table ip home {
  chain leave {
    type nat hook postrouting priority srcnat
    ip saddr 10.99.1.0/24 ip protocol udp snat to ADDRESS:FIRST-LAST
  }
}
"""


def obstacle() -> str | None:
    """Why there can be no NAT here, or None."""
    missing = [f"{tool} ({package})" for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    return namespace.obstacle()


@dataclass
class Nat:
    nat: int
    server: int
    """Process ids; each holds a namespace."""
    rebindings: int = 0

    @property
    def server_prefix(self) -> list[str]:
        """What goes before a command that is to run at the server."""
        return _inside(self.server)

    def rebind(self, *, address: bool = False) -> None:
        self.rebindings += 1
        outside = OUTSIDE[address]
        first = 40_000 + 100 * self.rebindings
        rules = RULES.replace("ADDRESS", outside).replace("FIRST", str(first)).replace("LAST", str(first + 99))
        _run(_inside(self.nat), "nft -f -", rules)
        _run(_inside(self.nat), "conntrack -F")


@contextmanager
def caller_behind_nat() -> Iterator[Nat]:
    """Only inside a network of our own (`namespace.is_private`)."""
    assert namespace.is_private()
    holders = [subprocess.Popen(["unshare", "--net", "sleep", "600"]) for _ in range(2)]
    try:
        for holder in holders:
            _wait_until_apart(holder.pid)
        home = Nat(holders[0].pid, holders[1].pid)
        for name, end, pid in (("caller0", "caller1", home.nat), ("server1", "server0", home.server)):
            _run([], f"ip link add {name} type veth peer name {end}")
            _run([], f"ip link set {end} netns {pid}")
        _run([], f"ip link set server1 netns {home.nat}")
        _run([], f"ip address add {CALLER}/24 dev caller0")
        _run([], "ip link set caller0 up")
        _run([], "ip route replace default via 10.99.1.254")
        for command in (
            "ip address add 10.99.1.254/24 dev caller1",
            *(f"ip address add {outside}/24 dev server1" for outside in OUTSIDE),
            "ip link set lo up",
            "ip link set caller1 up",
            "ip link set server1 up",
            "sysctl -q -w net.ipv4.ip_forward=1",
        ):
            _run(_inside(home.nat), command)
        for command in (
            f"ip address add {SERVER}/24 dev server0",
            "ip link set lo up",
            "ip link set server0 up",
            f"ip route add 10.99.1.0/24 via {OUTSIDE[0]}",
        ):
            _run(_inside(home.server), command)
        home.rebind()
        yield home
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()


@asynccontextmanager
async def local_page(port: int) -> AsyncIterator[str]:
    """The server's page as one of this machine's own: browsers give no microphone to other plain HTTP."""
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, partial(_forward, port), 0, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
        nursery.cancel_scope.cancel()


async def _forward(port: int, near: trio.SocketStream) -> None:
    async def pump(source: trio.SocketStream, target: trio.SocketStream) -> None:
        async for chunk in source:
            await target.send_all(chunk)
        await target.send_eof()

    try:
        far = await trio.open_tcp_stream(SERVER, port)
        async with far, near, trio.open_nursery() as nursery:
            nursery.start_soon(pump, near, far)
            nursery.start_soon(pump, far, near)
    except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # one side went away


def _inside(pid: int) -> list[str]:
    return ["nsenter", f"--net=/proc/{pid}/ns/net"]


def _wait_until_apart(pid: int) -> None:
    """`unshare` needs a moment before the process is in a namespace of its own."""
    _run(
        [],
        f'sh -c \'until [ "$(readlink /proc/{pid}/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done\'',
    )


def _run(prefix: list[str], command: str, given: str = "") -> None:
    finished = subprocess.run([*prefix, *shlex.split(command)], input=given, capture_output=True, text=True, timeout=10)
    assert finished.returncode == 0, f"{command}: {finished.stderr}"
