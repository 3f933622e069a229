"""Whatever arrives from the network: every `*_untrusted` function gives a result or raises `DecodeError`, found by name.

Module-level functions and class methods are driven here, with bytes from hypothesis and with mutations of what real browsers
sent (tests/vectors). Cores with state have their own property tests beside them.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import protocol
from protocol.errors import DecodeError
from protocol.sctp.packet import RawChunk
from protocol.wire import Reader

VECTORS = Path(__file__).parents[1] / "vectors"


BUILDERS: dict[str, Callable[[bytes], object]] = {
    "bytes": lambda data: data,
    "bytes | memoryview": memoryview,
    "str": lambda data: data.decode("utf-8", "replace"),
    "str | bytes": lambda data: data,
    "int": lambda data: sum(data[:2]) % 256,
    "Reader": Reader,
    "RawChunk": lambda data: RawChunk(data[0] if data else 0, data[1] if len(data) > 1 else 0, data[2:]),
}
"""How to make an argument of each annotation out of bytes from the network."""

NOT_FROM_BYTES = {"protocol.dtls.signatures.verify_untrusted"}
"""Takes an object that only another parser makes; its tests are beside it."""


def parsers() -> dict[str, Callable[..., object]]:
    found: dict[str, Callable[..., object]] = {}
    for info in pkgutil.walk_packages(protocol.__path__, "protocol."):
        module = importlib.import_module(info.name)
        for name, member in vars(module).items():
            if inspect.isfunction(member) and member.__module__ == info.name and is_public_parser(name):
                found[f"{info.name}.{name}"] = member
            if inspect.isclass(member) and member.__module__ == info.name:
                for method in vars(member):
                    bound = getattr(member, method)
                    if is_public_parser(method) and inspect.ismethod(bound):  # a class method
                        found[f"{info.name}.{name}.{method}"] = bound
    return {name: function for name, function in found.items() if name not in NOT_FROM_BYTES}


def is_public_parser(name: str) -> bool:
    return name.endswith("_untrusted") and not name.startswith("_")


PARSERS = parsers()


def required(function: Callable[..., object]) -> list[str]:
    """The annotations of the arguments that it must be given."""
    return [str(p.annotation) for p in inspect.signature(function).parameters.values() if p.default is p.empty]


def feed(function: Callable[..., object], data: bytes) -> None:
    arguments = [BUILDERS[kind](data) for kind in required(function)]
    try:
        function(*arguments)
    except DecodeError as refused:
        assert refused.reason.replace("_", "").isalnum(), "a reason is a metric label"


def corpus() -> list[bytes]:
    seeds = [file.read_bytes() for file in sorted(VECTORS.glob("*.offer.sdp"))]
    for file in sorted(VECTORS.glob("*.jsonl")):
        seeds += [bytes.fromhex(json.loads(line)["hex"]) for line in file.read_text().splitlines()[:12]]
    return seeds


CORPUS = corpus()


def test_the_parsers_are_found_by_name():
    assert len(PARSERS) >= 50
    assert len(CORPUS) >= 20


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PARSERS))
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.binary(max_size=1500))
def test_any_bytes_give_a_result_or_a_decode_error(name: str, data: bytes):
    feed(PARSERS[name], data)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PARSERS))
def test_mutations_of_what_browsers_send_give_a_result_or_a_decode_error(name: str):
    source = random.Random(name)
    for seed in CORPUS:
        for _ in range(8):
            mutated = bytearray(seed)
            for _ in range(source.randrange(1, 6)):
                at = source.randrange(len(mutated))
                match source.randrange(4):
                    case 0:
                        mutated[at] ^= 1 << source.randrange(8)
                    case 1:
                        mutated[at] = source.choice((0, 1, 0x7F, 0x80, 0xFF))
                    case 2:
                        del mutated[at:]
                    case _:
                        mutated[at:at] = mutated[: source.randrange(40)]
                if not mutated:
                    break
            feed(PARSERS[name], bytes(mutated))
