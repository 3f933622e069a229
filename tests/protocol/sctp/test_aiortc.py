"""Data channels between our association and aiortc's, over UDP on loopback, with and without loss."""

from __future__ import annotations

import os
import random
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from protocol.sctp import (
    Association,
    AssociationClosed,
    AssociationUp,
    ChannelClosed,
    ChannelMessage,
    ChannelOpened,
    Output,
    Packet,
)

PEER = Path(__file__).with_name("aiortc_sctp_peer.py")
MESSAGES: list[str | bytes] = ["grüß dich ☎", b"\x00\x01\xff", "", b"", bytes(range(256)) * 256, "é" * 32768]


class Run:
    """Drives our side over a real socket until something has happened; drops packets by chance both ways."""

    def __init__(self, is_client: bool, loss: float) -> None:
        self._random = random.Random(7)
        self._loss = loss
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.bind(("127.0.0.1", 0))
        role = "server" if is_client else "client"
        self.process = subprocess.Popen(
            [sys.executable, str(PEER), role, str(self._socket.getsockname()[1])], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self._remote = ("127.0.0.1", int(self.process.stdout.readline()))
        self.association = Association(is_client=is_client, max_message_size_remote=262144, entropy=os.urandom)
        self.events: list[Output] = []

    def close(self) -> None:
        self._socket.close()
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def lines(self) -> list[str]:
        assert self.process.stdout is not None
        return self.process.stdout.read().splitlines()

    def of(self, kind: type) -> list[Output]:
        return [event for event in self.events if isinstance(event, kind)]

    def until(self, condition: Callable[[], bool], react: Callable[[Output], None] = lambda event: None) -> None:
        end = time.monotonic() + 20
        while not condition():
            now = time.monotonic()
            assert now < end, (self.events[-3:], self.association.drops)
            for output in self.association.poll():
                if not isinstance(output, Packet):
                    self.events.append(output)
                    react(output)
                elif self._random.random() >= self._loss:
                    self._socket.sendto(output.data, self._remote)
            if self.association.next_timeout() <= now:
                self.association.handle_timeout(now)
                continue
            wait = min(self.association.next_timeout() - now, 0.05)
            if select.select([self._socket], [], [], wait)[0]:
                data = self._socket.recv(2048)
                if self._random.random() >= self._loss:
                    self.association.receive_untrusted(data, time.monotonic())


@pytest.mark.slow
@pytest.mark.conformance
@pytest.mark.parametrize(("is_client", "loss"), [(True, 0.0), (False, 0.0), (True, 0.02)])
def test_messages_of_every_kind_pass_both_ways_with_aiortc(is_client: bool, loss: float):
    run = Run(is_client, loss)
    association = run.association
    try:
        association.connect(time.monotonic())
        ours = association.open_channel("ours", "subprotocol")
        agreed = association.open_channel("agreed", negotiated_id=500)
        assert ours % 2 == (0 if is_client else 1)
        for message in MESSAGES:
            assert association.send(ours, message, time.monotonic())

        echoes: list[Output] = []

        def react(event: Output) -> None:
            match event:
                case ChannelMessage(channel, data) if channel not in (ours, agreed):
                    association.send(channel, data, time.monotonic())
                case ChannelMessage(channel, data) if channel == ours:
                    echoes.append(event)

        run.until(lambda: len(echoes) == len(MESSAGES) and bool(run.of(ChannelClosed)), react)
        assert [event.data for event in echoes if isinstance(event, ChannelMessage)] == MESSAGES
        assert run.of(AssociationUp) == [AssociationUp()]
        theirs = next(e for e in run.of(ChannelOpened) if isinstance(e, ChannelOpened) and e.label == "theirs")
        assert theirs == ChannelOpened(theirs.channel, "theirs", "p", True)
        assert theirs.channel % 2 != ours % 2
        assert run.of(ChannelClosed) == [ChannelClosed(theirs.channel)]

        association.send(agreed, "by agreement", time.monotonic())
        run.until(lambda: ChannelMessage(agreed, "by agreement") in run.events)

        association.close_channel(ours, time.monotonic())
        run.until(lambda: ChannelClosed(ours) in run.events)
        again = association.open_channel("again", ordered=False, now=time.monotonic())
        assert again == ours  # closed on both sides, so the identifier is free
        association.send(again, "stop", time.monotonic())
        run.until(lambda: bool(run.of(AssociationClosed)))
        assert run.events[-1] == AssociationClosed("aborted_by_peer")
        run.process.wait(10)
        lines = run.lines()
        assert f"opened ours subprotocol True {ours}" in lines
        assert {"returned True", "closed theirs", "closed ours", f"opened again  False {again}"} <= set(lines)
    finally:
        run.close()
