"""The callers' own machinery: many addresses on one socket, packets in their time, calls without set-up, accounts of a tree."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from bench.accounts import ProcessAccounts, TreeAccounts
from bench.caller import BEHIND, Window, is_audio
from bench.crowd import Crowd, Post, to_pair
from bench.preset import PresetCall
from loadgen.call import CallFigures
from protocol.address import pack_address


@pytest.fixture(name="sender")
def sender_() -> Iterator[Crowd]:
    with closing(Crowd()) as crowd:
        yield crowd


@pytest.fixture(name="receiver")
def receiver_() -> Iterator[Crowd]:
    with closing(Crowd()) as crowd:
        crowd.hear_to_whom()
        yield crowd


def heard_by(crowd: Crowd, count: int) -> list[object]:
    arrivals: list[object] = []
    deadline = time.monotonic() + 5
    while len(arrivals) < count and time.monotonic() < deadline:
        arrivals += crowd.receive()
    return arrivals


def test_each_letter_has_its_source_and_its_target_and_each_arrival_tells_both(sender: Crowd, receiver: Crowd):
    post = Post(
        [("127.3.0.1", b"one"), ("127.3.0.2", b"two")], [("127.4.0.1", receiver.port), ("127.4.0.2", receiver.port)]
    )
    for _ in range(2):  # what the kernel put into the headers must not stay there
        assert post.send(sender.fd, 2) == 2
        assert heard_by(receiver, 2) == [
            (b"one", pack_address("127.3.0.1", sender.port), socket.inet_aton("127.4.0.1")),
            (b"two", pack_address("127.3.0.2", sender.port), socket.inet_aton("127.4.0.2")),
        ]


def test_packets_of_a_window_leave_in_their_time_and_late_ones_are_counted(sender: Crowd, receiver: Crowd):
    post = Post([("127.3.0.1", bytes([number])) for number in range(10)], ("127.0.0.1", receiver.port))
    window = Window(post, began=100.0, gap=0.001)
    window.send(sender.fd, 10, now=100.0)
    window.send(sender.fd, 10, now=100.0025)
    assert (window.sent, window.late) == (3, 0)
    window.send(sender.fd, 8, now=100.004 + BEHIND)
    assert (window.sent, window.late) == (8, 5)


def test_audio_is_told_from_reports_checks_and_handshakes():
    rtp, rtp_marked, report, check, hello = b"\x80\x6f", b"\x90\xef", b"\x80\xc9", b"\0\1", b"\x16\xfe"
    assert [is_audio(data) for data in (rtp, rtp_marked, report, check, hello)] == [True, True, False, False, False]


def test_an_address_is_taken_apart():
    assert to_pair(pack_address("192.0.2.7", 5004)) == ("192.0.2.7", 5004)


def test_two_preset_calls_with_the_keys_of_each_other_understand_each_other():
    figures, address = CallFigures(b"runs"), pack_address("127.0.0.1", 9)
    key = bytes(28)
    call = PresetCall(0, figures, address, entropy=lambda _: key)  # the same key both ways: it can hear itself
    for index in range(3):
        call.tick(index, 0.0, 1.0)
    sent = call.take_datagrams()
    assert [target for _, target in sent] == [address] * 3
    for data, source in sent:
        assert is_audio(data)
        call.receive_untrusted(data, source, 1.1)
    call.receive_untrusted(sent[0][0][:-1] + b"\0", address, 1.1)
    assert call.audio.received == 3


def test_the_accounts_of_a_process_tree_hold_all_its_members():
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        tree = TreeAccounts(parent.pid)
        assert tree.members[0].pid == parent.pid
        assert len(tree.members) == 2
        assert tree.resident_bytes() > ProcessAccounts(parent.pid).resident_bytes()
        assert tree.cpu_ns() > ProcessAccounts(parent.pid).cpu_ns()
        assert os.getpid() not in [member.pid for member in tree.members]
        parent.communicate(b"\n")
