"""What fuzzing found worth keeping is run in every test run, as it is and a little damaged; no fuzzer is needed for it."""

from __future__ import annotations

import random

import pytest

from fuzz import corpus
from fuzz.target import BrokenPromise, Target, datagrams
from fuzz.targets import TARGETS
from protocol.errors import DecodeError

IDS = [target.name for target in TARGETS]


@pytest.mark.parametrize("target", TARGETS, ids=IDS)
def test_the_committed_corpus_finds_nothing(target: Target):
    source = random.Random(target.name)
    inputs = corpus.read(target.name)
    assert inputs, "every target has a corpus"
    for data in inputs:
        target.run(data[: target.maximum])
        damaged = bytearray(data)
        if damaged:
            damaged[source.randrange(len(damaged))] ^= 1 << source.randrange(8)
            target.run(bytes(damaged[: target.maximum]))


def test_every_corpus_belongs_to_a_target_and_is_small():
    files = sorted(corpus.FOLDER.iterdir())
    assert [file.name for file in files] == sorted(f"{name}.hex" for name in IDS)
    assert all(len(corpus.read(file.stem)) <= corpus.MAXIMUM_INPUTS for file in files)
    assert all(sum(map(len, corpus.read(file.stem))) <= corpus.MAXIMUM_BYTES for file in files)


def test_a_parser_that_breaks_its_promise_is_a_finding(monkeypatch: pytest.MonkeyPatch):
    (target,) = (target for target in TARGETS if target.name == "rtp")
    packet = bytes.fromhex("806f0001000003c0deadbeef") + b"opus"
    target.run(packet)
    monkeypatch.setattr("protocol.rtp.packet.RtpPacket.serialize", lambda packet: packet.payload + bytes(12))
    with pytest.raises((BrokenPromise, DecodeError)):
        target.run(packet)


def test_an_input_is_cut_into_datagrams_by_their_lengths():
    assert datagrams(bytes.fromhex("0002aabb0001cc")) == [b"\xaa\xbb", b"\xcc"]
    assert datagrams(bytes.fromhex("0000 0005aa")) == [b"", b"\xaa"]
    assert datagrams(b"\x00") == []


def test_what_was_found_is_added_within_the_bounds_and_nothing_is_lost(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(corpus, "FOLDER", tmp_path)
    assert corpus.extend("x", [b"long one", b"", b"a"]) == 3
    assert corpus.read("x") == [b"", b"a", b"long one"]
    assert corpus.extend("x", [number.to_bytes(2, "big") for number in range(500)]) == corpus.MAXIMUM_INPUTS
    assert {b"", b"a", b"long one"} < set(corpus.read("x"))
    assert corpus.extend("y", [bytes(corpus.MAXIMUM_BYTES), b"short"]) == 1
