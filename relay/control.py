"""The control socket: `relay upgrade` asks a running relay on this machine, which answers with lines of JSON.

Only the relay's own user and root may: the kernel says who connects. A name in Linux's abstract namespace needs no file
and vanishes with the process; a path is made with mode 0600.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import trio

from relay.config import RelayConfig
from service.listening import naming
from service.logs import get_logger

__all__ = ["Answer", "ask_upgrade", "control_name", "running_relays", "serve_control"]

# Implementation constants
ABSTRACT = "antiphon relay "
PROC_UNIX = Path("/proc/net/unix")
COMMAND = b"upgrade\n"
COMMAND_SECONDS = 2.0
MAX_CLIENTS = 8
MAX_LINE = 65536
RETRY_SECONDS = 0.1

log = get_logger()

Say = Callable[[str], None]


class Answer(msgspec.Struct, frozen=True):
    """One line: a step on the way, or the end of it (`reason` is empty if it went well)."""

    step: str = ""
    is_over: bool = False
    reason: str = ""


def control_name(config: RelayConfig, listen: str) -> str:
    """Where the relay that listens at `listen` is asked; begins with NUL if it is no path. Empty: nowhere."""
    if config.control or sys.platform != "linux" or config.reuse_port:  # several relays may share that address
        return config.control
    return f"\0{ABSTRACT}{listen}"


def running_relays() -> list[str]:
    """The first listen addresses of relays on this machine that are asked in the abstract namespace, as their names say."""
    try:
        lines = PROC_UNIX.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    names = (line.partition(f"@{ABSTRACT}") for line in lines)
    return list(dict.fromkeys(_readable(listen) for _, found, listen in names if found))[:MAX_CLIENTS]


async def serve_control(
    name: str,
    upgrade: Callable[[Say], Awaitable[str]],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Until cancelled. Raises CannotListen if a path cannot be had; a relay without the abstract name still has SIGUSR2."""
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        if name.startswith("\0"):
            try:
                await sock.bind(name)
            except OSError as error:
                log.warning("no control socket; SIGUSR2 still upgrades", name=name[1:], error=error.strerror)
                task_status.started()
                return
        else:
            _remove_stale(name)
            mask = os.umask(0o177)
            try:
                with naming(name):
                    await sock.bind(name)
            finally:
                os.umask(mask)
        try:
            sock.listen(MAX_CLIENTS)
            task_status.started()
            await _accept(sock, upgrade)
        finally:
            if not name.startswith("\0"):
                with suppress(OSError):
                    os.unlink(name)


async def _accept(sock: trio.socket.SocketType, upgrade: Callable[[Say], Awaitable[str]]) -> None:
    limit = trio.CapacityLimiter(MAX_CLIENTS)
    async with trio.open_nursery() as nursery:
        while True:
            try:
                client, _ = await sock.accept()
            except OSError:  # no descriptor left, or who came has gone
                await trio.sleep(RETRY_SECONDS)
                continue
            if _user_of(client) in (os.geteuid(), 0) and limit.available_tokens:
                limit.acquire_on_behalf_of_nowait(client)
                nursery.start_soon(_answer, client, upgrade, limit)
            else:
                client.close()


async def _answer(
    client: trio.socket.SocketType, upgrade: Callable[[Say], Awaitable[str]], limit: trio.CapacityLimiter
) -> None:
    def say(answer: Answer) -> None:
        with suppress(OSError):  # who asked has gone, or does not read: the upgrade goes on
            os.write(client.fileno(), msgspec.json.encode(answer) + b"\n")

    try:
        with client:
            command = b""
            with trio.move_on_after(COMMAND_SECONDS), suppress(OSError):
                command = await client.recv(len(COMMAND))
            if command == COMMAND:
                say(Answer(is_over=True, reason=await upgrade(lambda step: say(Answer(step)))))
            else:
                say(Answer(is_over=True, reason="not a command"))
    finally:
        limit.release_on_behalf_of(client)


def ask_upgrade(name: str, patience: float) -> Iterator[Answer]:
    """Ask the relay there, and yield what it says, up to and with the end. Raises OSError.

    Any user may have taken a name in the abstract namespace before the relay did: whoever else answers is not asked (root
    asks everybody, since a relay runs as whom it likes), and nothing that is said can do more to a terminal than be read.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(patience)
        sock.connect(name)
        if os.geteuid() and _user_of(sock) not in (os.geteuid(), 0):
            raise PermissionError(errno.EPERM, "another user listens there")
        sock.sendall(COMMAND)
        with sock.makefile("rb") as lines:
            while line := lines.readline(MAX_LINE):
                try:
                    answer = msgspec.json.decode(line, type=Answer)
                except msgspec.DecodeError:
                    raise OSError(errno.EPROTO, "no relay listens there") from None
                yield Answer(_readable(answer.step), answer.is_over, _readable(answer.reason))
                if answer.is_over:
                    return
    yield Answer(is_over=True, reason="the relay ended")


def _readable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def _user_of(client: trio.socket.SocketType | socket.socket) -> int:
    if not hasattr(socket, "SO_PEERCRED"):
        return os.geteuid()  # the mode of the path keeps others out
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("=iII", credentials)[1])


def _remove_stale(path: str) -> None:
    """A socket that nobody listens at any more, left by a relay that was killed. What is no socket answers just so."""
    with suppress(OSError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with suppress(OSError):
                os.unlink(path)
        except OSError:
            pass
