"""The line grammar: nothing is lost, nothing that is not SDP passes, nothing takes long."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import DecodeError
from protocol.sdp import Answer, OfferRefused, parse_untrusted, read_offer

LINE = st.tuples(st.sampled_from("abciktz"), st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=30)).map(
    "=".join
)


def test_a_captured_offer_comes_back_line_by_line(captured: str):
    assert parse_untrusted(captured).serialize().split("\r\n") == [
        *captured.replace("\r\n", "\n").rstrip("\n").split("\n"),
        "",
    ]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(LINE, max_size=8), st.lists(st.lists(LINE, max_size=8), max_size=4))
def test_unknown_lines_survive_in_their_place(session: list[str], sections: list[list[str]]):
    lines = ["v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", *session]
    for section in sections:
        lines += ["m=audio 9 UDP/TLS/RTP/SAVPF 0", *section]
    text = "".join(f"{line}\r\n" for line in lines)
    assert parse_untrusted(text).serialize() == text
    assert parse_untrusted(text.encode()).serialize() == text


def test_lf_crlf_and_a_missing_last_line_end_are_all_the_same(parts: dict[str, str]):
    text = parts["both"]
    expected = parse_untrusted(text)
    assert parse_untrusted(text.replace("\n", "\r\n")) == expected
    assert parse_untrusted(text.rstrip("\n")) == expected
    assert parse_untrusted(text + "\r\n\r\n") == expected


@pytest.mark.parametrize("body", ["", "\r\n", " \n\n\t\n", b"", b"\n"])
def test_an_empty_body_is_called_empty(body: str | bytes):
    with pytest.raises(OfferRefused) as refused:
        parse_untrusted(body)
    assert refused.value.code == "empty_sdp"


@pytest.mark.parametrize(
    "body",
    [
        "hello",
        '{"sdp": "v=0"}',
        "<html>",
        "v=0\n",
        "v=1\no=- 1 1 IN IP4 0.0.0.0\ns=-\nt=0 0\n",
        "v=0\ns=-\no=- 1 1 IN IP4 0.0.0.0\nt=0 0\n",
        "v=0\no=- 1 1 IN IP4 0.0.0.0\ns=-\n",
        "v=0\no=- 1 1 IN\ns=-\nt=0 0\n",
        "v=0\no=- 1 1 IN IP4 0.0.0.0\n\ns=-\nt=0 0\n",
        "v=0\no=- 1 1 IN IP4 0.0.0.0\ns=a\rb\nt=0 0\n",
        "v=0\no=- 1 1 IN IP4 0.0.0.0\ns=\x00\nt=0 0\n",
        "v=0\no=- 1 1 IN IP4 0.0.0.0\ns=-\nt=0 0\nm=audio\n",
        "v=0\no=- 1 1 IN IP4 0.0.0.0\ns=-\nt=0 0\nm=audio 65536 RTP/AVP 0\n",
        "v=0\no=- 1 1 IN IP4 0.0.0.0\ns=-\nt=0 0\nm=audio 9 RTP//AVP 0\n",
        b"v=0\no=\xff",
        b"\x16\xfe\xfd\x00\x00",
    ],
)
def test_what_is_not_sdp_is_refused_as_such(body: str | bytes):
    with pytest.raises(OfferRefused) as refused:
        parse_untrusted(body)
    assert refused.value.code == "not_sdp"
    assert refused.value.message.endswith(".")


@pytest.mark.parametrize("body", ["v=0\n" + "a=x\n" * 20_000, b"\xff" * 65_537, "é" * 40_000])
def test_more_than_64_kib_is_too_large(body: str | bytes):
    with pytest.raises(OfferRefused) as refused:
        parse_untrusted(body)
    assert refused.value.code == "sdp_too_large"


def test_lines_and_media_sections_are_counted(parts: dict[str, str]):
    with pytest.raises(OfferRefused) as refused:
        parse_untrusted(parts["session"] + "a=x\n" * 2100)
    assert refused.value.code == "sdp_too_long"
    with pytest.raises(OfferRefused) as refused:
        parse_untrusted(parts["session"] + f"a={'x' * 5000}\n")
    assert refused.value.code == "sdp_too_long"
    section = "m=audio 0 RTP/AVP 0\n"
    assert len(parse_untrusted(parts["session"] + section * 16).media) == 16
    with pytest.raises(OfferRefused) as refused:
        parse_untrusted(parts["session"] + section * 17)
    assert refused.value.code == "too_many_media_sections"


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.binary(max_size=400)
    | st.binary(max_size=80).map(lambda tail: b"v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n" + tail)
)
def test_any_bytes_give_a_description_or_a_decode_error(data: bytes):
    with contextlib.suppress(DecodeError):
        read_offer(parse_untrusted(data))


def test_a_mutated_offer_gives_a_description_or_a_decode_error(captured: str, respond: Callable[..., Answer]):
    lines = captured.replace("\r\n", "\n").split("\n")
    for index, line in enumerate(lines):
        for changed in (
            [],
            [line, line],
            [line[: len(line) // 2]],
            [line[::-1]],
            [line.swapcase()],
            [line + " 99999999999"],
        ):
            try:
                respond("\n".join([*lines[:index], *changed, *lines[index + 1 :]]))
            except DecodeError as error:
                assert isinstance(error, OfferRefused)


@pytest.mark.parametrize(
    "filler",
    [
        "a=group:BUNDLE " + "x " * 1000,
        "a=fmtp:111 " + ";" * 4000,
        "a=rtpmap:111 opus/48000/2",
        "a=candidate:1 1 udp 1 192.0.2.1 1 typ host",
        "a=extmap:1/sendrecv urn:x " + "y " * 1900,
        "m=audio 9 UDP/TLS/RTP/SAVPF " + " ".join(str(n % 128) for n in range(1200)),
        "a=x",
    ],
)
def test_the_worst_offer_of_64_kib_is_read_within_five_milliseconds_of_cpu(filler: str, parts: dict[str, str]):
    base = parts["both"]
    room = min((65_536 - len(base)) // (len(filler) + 1), 2000)
    text = (base + f"{filler}\n" * room).encode()

    def read() -> None:
        with contextlib.suppress(OfferRefused):
            read_offer(parse_untrusted(text))

    def merely_split() -> None:
        for line in text.decode().split("\n"):
            re.fullmatch("([a-z])=(.*)", line)

    # A machine that is busy with something else slows even the CPU's own time: then the two are compared.
    assert fastest(read) < max(0.005, 5 * fastest(merely_split))


def fastest(work: Callable[[], None]) -> float:
    """The least seconds of CPU of some tries."""
    taken = []
    for _ in range(8):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)
