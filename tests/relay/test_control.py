"""Who may ask a relay to upgrade, whom an operator asks, and what happens when nothing can be spared for it."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import trio

from relay import control
from relay.control import Answer, ask_upgrade, serve_control
from relay.fresh_host import encode_failed
from relay.host import DELAY_LONGEST, _Generation, _Life
from relay.messages import Failed, decode
from service.listening import CannotListen

SOMEBODY = 12345


async def never(_say: Callable[[str], None]) -> str:
    raise AssertionError("nobody may ask for this")


@pytest.fixture
def name() -> str:
    return f"\0antiphon test {os.getpid()} {time.monotonic_ns()}"


async def ask(name: str) -> list[Answer]:
    return await trio.to_thread.run_sync(lambda: list(ask_upgrade(name, 5.0)))


async def test_the_relays_own_user_is_answered_step_by_step(name: str):
    async def upgrade(say: Callable[[str], None]) -> str:
        say("a step")
        return "as before"

    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, name, upgrade)
        assert await ask(name) == [Answer("a step"), Answer(is_over=True, reason="as before")]
        nursery.cancel_scope.cancel()


async def test_another_user_is_not_answered(name: str, monkeypatch: pytest.MonkeyPatch):
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, name, never)
        monkeypatch.setattr(control, "_user_of", lambda _: SOMEBODY)
        with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            await sock.connect(name)
            assert await sock.recv(100) == b""
        nursery.cancel_scope.cancel()


async def test_only_a_socket_that_nobody_listens_at_is_removed(tmp_path: Path):
    precious, stale = tmp_path / "precious", tmp_path / "stale"
    precious.write_text("an operator's mistake must not cost a file")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(stale))
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, str(stale), never)
        assert stale.stat().st_mode & 0o777 == 0o600
        for path in (precious, stale):
            with pytest.raises(CannotListen):
                await serve_control(str(path), never)
            assert path.exists()
        nursery.cancel_scope.cancel()
    assert not stale.exists()


def answered_by(name: str, data: bytes) -> list[Answer]:
    """What an operator is told when somebody has taken the relay's name and says this."""

    def impostor() -> None:
        client, _ = sock.accept()
        with client:
            client.recv(100)
            client.sendall(data)

    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(name)
        sock.listen()
        thread = threading.Thread(target=impostor)
        thread.start()
        try:
            return list(ask_upgrade(name, 5.0))
        finally:
            thread.join(5)


def test_what_an_impostor_says_cannot_command_a_terminal(name: str):
    [step, end] = answered_by(
        name, rb'{"step":"\u001b]0;title\u0007\nupgraded"}' + b"\n" + rb'{"is_over":true}' + b"\n"
    )
    assert step == Answer("?]0;title??upgraded")
    assert end.is_over


@pytest.mark.parametrize("data", [b"\xff\n", b"{}" * 100_000, b'{"step":5}\n'])
def test_what_is_no_answer_is_an_error_and_no_traceback(name: str, data: bytes):
    with pytest.raises(OSError, match="no relay"):
        answered_by(name, data)


def test_whoever_is_neither_the_relays_user_nor_root_is_not_asked(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY)
    monkeypatch.setattr(control, "_user_of", lambda _: SOMEBODY + 1)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(name)
        sock.listen()
        with pytest.raises(PermissionError):
            list(ask_upgrade(name, 5.0))


def test_a_host_that_cannot_fork_keeps_the_workers_that_it_has_and_tries_again(monkeypatch: pytest.MonkeyPatch):
    def no_process() -> NoReturn:
        raise BlockingIOError(errno.EAGAIN, "no more processes")

    ours, theirs = socket.socketpair()
    generation = _Generation(ours, [])
    with ours, theirs, generation._wake, generation._woken:
        generation._lives = lives = [_Life(), _Life()]
        lives[1].pid, lives[1].due = 99, None
        monkeypatch.setattr(os, "fork", no_process)
        waits = []
        for _ in range(20):
            generation._fork(0, 100.0)
            assert lives[0].due is not None
            waits.append(lives[0].due - 100.0)
        assert waits == sorted(waits)
        assert 0 < waits[0] < waits[-1] <= DELAY_LONGEST
        assert (lives[1].pid, lives[0].pid) == (99, 0)


def test_a_host_that_does_not_load_says_so_in_the_words_of_the_others():
    for reason in ("ImportError: no", "", "é" * 900, "x" * 5000):
        told = decode(encode_failed(reason))
        assert isinstance(told, Failed)
        assert reason.startswith(told.reason)
        assert len(told.reason) >= min(len(reason), 500)
