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
    """Drives our side over a real socket until something has happened. By chance, in both directions, packets are lost,
    doubled, or held back until the next one has passed them."""

    def __init__(self, is_client: bool, loss: float, duplicate: float = 0.0, reorder: float = 0.0) -> None:
        self._random = random.Random(7)
        self._loss, self._duplicate, self._reorder = loss, duplicate, reorder
        self._held: dict[str, bytes] = {}  # by direction
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

    def _carried(self, direction: str, data: bytes) -> list[bytes]:
        held = self._held.pop(direction, None)
        after = [] if held is None else [held]
        if self._random.random() < self._loss:
            return after
        if self._random.random() < self._reorder:
            self._held[direction] = data
            return after
        copies = 2 if self._random.random() < self._duplicate else 1
        return [data] * copies + after

    def until(self, condition: Callable[[], bool], react: Callable[[Output], None] = lambda event: None) -> None:
        end = time.monotonic() + 40
        while not condition():
            now = time.monotonic()
            assert now < end, (self.events[-3:], self.association.drops)
            for output in self.association.poll():
                if not isinstance(output, Packet):
                    self.events.append(output)
                    react(output)
                else:
                    for data in self._carried("out", output.data):
                        self._socket.sendto(data, self._remote)
            if self.association.next_timeout() <= now:
                self.association.handle_timeout(now)
                continue
            wait = min(self.association.next_timeout() - now, 0.05)
            if select.select([self._socket], [], [], wait)[0]:
                for data in self._carried("in", self._socket.recv(2048)):
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


BAD = {"loss": 0.04, "duplicate": 0.05, "reorder": 0.1}


@pytest.mark.slow
@pytest.mark.conformance
@pytest.mark.parametrize("is_client", [True, False])
def test_messages_keep_their_bounds_and_order_over_a_bad_network_with_aiortc(is_client: bool):
    run = Run(is_client, **BAD)
    try:
        run.association.connect(time.monotonic())
        channel = run.association.open_channel("ours")
        chance = random.Random(3)
        sent = [chance.randbytes(chance.choice((1, 100, 1121, 5000))) for _ in range(40)]
        for message in sent:
            assert run.association.send(channel, message, time.monotonic())

        def came() -> list[bytes | str]:
            return [e.data for e in run.of(ChannelMessage) if isinstance(e, ChannelMessage) and e.channel == channel]

        run.until(lambda: len(came()) == len(sent))
        assert came() == sent
    finally:
        run.close()


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.conformance
def test_what_both_sides_give_up_is_skipped_and_the_rest_arrives_in_order_with_aiortc():
    """The channel's limit goes for aiortc's echoes, too: each side sends FORWARD TSN and follows the other's."""
    run = Run(True, **BAD)
    try:
        run.association.connect(time.monotonic())
        partial = run.association.open_channel("partial", max_retransmits=0)
        reliable = run.association.open_channel("reliable")
        run.until(lambda: len(run.of(ChannelOpened)) >= 2)
        for number in range(150):
            assert run.association.send(partial, f"{number}", time.monotonic())
            assert run.association.send(reliable, f"{number}", time.monotonic())

        def came(channel: int) -> list[int]:
            messages = [e for e in run.of(ChannelMessage) if isinstance(e, ChannelMessage) and e.channel == channel]
            return [int(message.data) for message in messages]

        run.until(lambda: len(came(reliable)) == 150 and run.association.drained)
        assert came(reliable) == list(range(150))
        assert came(partial) == sorted(set(came(partial)))
        assert 0 < len(came(partial)) < 150  # how many depends on what was on its way when a timer ran out
        assert run.association.drops["message_abandoned"] > 0
    finally:
        run.close()
