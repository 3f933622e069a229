"""The agent link's codec: every message survives the way there and back, and noise is refused with a reason."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.agentlink import (
    MAX_CONTROL_BYTES,
    MAX_DATA_BYTES,
    MAX_FRAME_BYTES,
    AgentDrain,
    AgentHello,
    CallAccept,
    CallClient,
    CallDigit,
    CallEnd,
    CallFlush,
    CallPlayed,
    CallRefuse,
    CallStart,
    ChannelBlocked,
    ChannelClosed,
    ChannelOpen,
    ChannelWritable,
    DataMessage,
    Drain,
    MediaRecord,
    PlayedReason,
    PlayedReports,
    SessionStart,
    TransceiverHello,
    decode_agent_message_untrusted,
    decode_binary_untrusted,
    decode_session_start_untrusted,
    decode_transceiver_message_untrusted,
    encode_data,
    encode_media,
    encode_message,
    encode_played,
)
from protocol.errors import DecodeError, LocalError

FROM_TRANSCEIVER = [
    TransceiverHello(1, "t-1"),
    CallStart(7, "rtc_1", "opus", 48000, 2, {"instructions": "grüß mich", "n": [1, 2.5, None]}),
    CallStart(0xFFFF_FFFF, "rtc_2", "", 0, 0),
    CallStart(8, "rtc_3", "opus", 48000, 2, None, CallClient("shop", "user-7"), 1_800_000_000),
    ChannelOpen(7, 1, "oai-events", ""),
    ChannelOpen(7, 0x1_FFFF, "sideband", ""),
    ChannelClosed(7, 1),
    ChannelBlocked(7, 1),
    ChannelWritable(7, 1),
    CallDigit(7, "#"),
    CallEnd(7, "hangup"),
    Drain(),
]
FROM_AGENT = [
    AgentHello(1, "parrot", ("opus", "PCMU")),
    AgentHello(1, "echo"),
    AgentHello(3, "realtime", (), ("echo",), sessions=("realtime",)),
    CallAccept(7),
    CallRefuse(7, "agent_full"),
    CallFlush(7),
    CallEnd(7, "agent_crashed"),
    AgentDrain(),
]


@pytest.mark.parametrize("message", FROM_TRANSCEIVER, ids=repr)
def test_every_message_of_a_transceiver_survives_the_wire(message: object):
    assert decode_transceiver_message_untrusted(encode_message(message)) == message


@pytest.mark.parametrize("message", FROM_AGENT, ids=repr)
def test_every_message_of_an_agent_survives_the_wire(message: object):
    assert decode_agent_message_untrusted(encode_message(message).encode()) == message


def test_the_wire_form_is_the_documented_one():
    assert json.loads(encode_message(CallDigit(3, "#"))) == {"type": "call.digit", "handle": 3, "digit": "#"}
    assert encode_played([CallPlayed(3, 1920, 60, PlayedReason.FLUSHED)]) == [
        bytes.fromhex("03 00 0001  00000003 00000780 02 00 003c")
    ]
    assert encode_media([MediaRecord(1, 960, 2, b"ab")]) == [
        bytes.fromhex("01 00 0001 00000001 000003c0 02 00 0002 6162")
    ]
    assert encode_media([MediaRecord(1, 960, 2, b"ab"), MediaRecord(2, 160, 0, b"c")]) == [
        bytes.fromhex("01 00 0002  00000001 000003c0 02 00 0002  00000002 000000a0 00 00 0001  6162 63")
    ]
    assert encode_data(DataMessage(1, 5, "é")) == bytes.fromhex("02 00000001 0005 01 c3a9")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "link_json"),
        ("{", "link_json"),
        ("\ud800", "link_json"),
        ("[]", "link_invalid"),
        ('{"type":"call.dance","handle":1}', "link_unknown_type"),
        ('{"type":"call.accept","handle":1}', "link_unknown_type"),  # it is for the other direction
        ('{"type":"call.end","handle":-1,"reason":"x"}', "link_invalid"),
        ('{"type":"call.end","handle":4294967296,"reason":"x"}', "link_invalid"),
        ('{"type":"call.end","handle":1}', "link_invalid"),
        ('{"type":"call.end","handle":1,"reason":7}', "link_invalid"),
        ('{"type":"call.start","handle":1,"call_id":"x","codec":"opus","clock_rate":48000}', "link_invalid"),
        (" " * (MAX_CONTROL_BYTES + 1), "link_oversize"),
        ('{"type":"hello","version":1,"transceiver":' + "[" * 100_000, "link_invalid"),
        ('{"type":"call.start","session":{"a":' + "[" * 100_000, "link_json"),
    ],
    ids=lambda value: value[:40],
)
def test_bad_control_messages_are_refused_with_a_reason(text: str, reason: str):
    with pytest.raises(DecodeError) as caught:
        decode_transceiver_message_untrusted(text)
    assert caught.value.reason == reason


def test_unknown_fields_of_a_newer_peer_are_ignored():
    text = '{"type":"call.end","handle":1,"reason":"hangup","mood":"good"}'
    assert decode_transceiver_message_untrusted(text) == CallEnd(1, "hangup")


def test_a_message_has_no_more_frames_than_one_turn_can_play():
    most = b"".join(encode_media([MediaRecord(1, 0, 0, b"")] * 5461))
    assert len(decode_binary_untrusted(most)) == 5461
    with pytest.raises(DecodeError, match="link_frame_count"):
        decode_binary_untrusted(b"\1\0" + (5462).to_bytes(2, "big") + bytes(12) * 5462)


def test_media_of_many_calls_shares_one_message_and_splits_only_when_large():
    few = [MediaRecord(n, n * 960, n & 3, bytes([n]) * n) for n in range(100)]
    assert [decode_binary_untrusted(message) for message in encode_media(few)] == [tuple(few)]
    many = [MediaRecord(n, 0xFFFF_FFFF, 0, bytes(MAX_FRAME_BYTES)) for n in range(100)]
    messages = encode_media(many)
    assert 2 <= len(messages) <= 4
    assert [record for message in messages for record in decode_binary_untrusted(message)] == many
    assert encode_media([]) == []


@pytest.mark.parametrize("data", ["", "text ✓", b"", b"\x00\xff", b"x" * MAX_DATA_BYTES], ids=lambda d: repr(d)[:20])
def test_data_messages_keep_text_and_binary_apart(data: str | bytes):
    assert decode_binary_untrusted(encode_data(DataMessage(9, 65535, data))) == DataMessage(9, 65535, data)


@pytest.mark.parametrize("channel", [0x1_0000, 0x1_0001, 0x1_FFFF])
def test_a_message_of_a_controller_has_its_number_less_a_flag(channel: int):
    for data, flags in (("text", 3), (b"binary", 2)):
        message = DataMessage(9, channel, data)
        encoded = encode_data(message)
        assert encoded[5:8] == (channel - 0x1_0000).to_bytes(2, "big") + bytes([flags])
        assert decode_binary_untrusted(encoded) == message


@pytest.mark.parametrize(
    "start",
    [
        SessionStart(3, "ws_1"),
        SessionStart(3, "ws_1", {"model": "any", "instructions": "ü"}, CallClient("shop", "user-7"), 1_800_000_000),
    ],
)
def test_a_session_begins_with_who_it_is_and_nothing_else(start: SessionStart):
    assert decode_session_start_untrusted(encode_message(start)) == start
    for wrong, reason in (
        (encode_message(Drain()), "link_unknown_type"),
        (encode_message(start).replace("3", '"three"', 1), "link_invalid"),
        ("{", "link_json"),
        ("x" * (MAX_CONTROL_BYTES + 1), "link_oversize"),
    ):
        with pytest.raises(DecodeError) as refused:
            decode_session_start_untrusted(wrong)
        assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "link_empty"),
        (b"\x00", "link_unknown_kind"),
        (b"\x01\x00", "link_truncated"),
        (bytes.fromhex("01 00 0001 00000001 000003c0 00 00 0003 6162"), "link_truncated"),
        (bytes.fromhex("01 00 0002 00000001 000003c0 00 00 0002 6162"), "link_truncated"),
        (bytes.fromhex("01 00 0001 00000001 000003c0 00 00 0001 6162"), "link_trailing_bytes"),
        (bytes.fromhex("01 00 ffff") + bytes(2000), "link_truncated"),
        (bytes.fromhex("01 00 0001 00000001 000003c0 00 00 ffff") + bytes(65535), "link_frame_oversize"),
        (b"\x02\x00\x00", "link_truncated"),
        (bytes.fromhex("03 00 0001 00000003 00000780 02 00 00"), "link_truncated"),
        (bytes.fromhex("03 00 0000 00000003 00000780 02 00 003c"), "link_trailing_bytes"),
        (bytes.fromhex("03 00 0001 00000003 00000780 03 00 003c"), "link_played_reason"),
        (bytes.fromhex("02 00000001 0005 01 ff"), "link_not_utf8"),
        (b"\x02" + bytes(MAX_DATA_BYTES + 2000), "link_oversize"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_bad_binary_messages_are_refused_with_a_reason(data: bytes, reason: str):
    with pytest.raises(DecodeError) as caught:
        decode_binary_untrusted(data)
    assert caught.value.reason == reason


def test_our_own_oversize_is_our_own_bug():
    with pytest.raises(LocalError):
        encode_media([MediaRecord(1, 0, 0, bytes(MAX_FRAME_BYTES + 1))])
    with pytest.raises(LocalError):
        encode_data(DataMessage(1, 0, bytes(MAX_DATA_BYTES + 1)))
    with pytest.raises(LocalError):
        encode_message(CallStart(1, "x", "opus", 48000, 2, {"instructions": "x" * MAX_CONTROL_BYTES}))


RECORDS = st.lists(
    st.builds(
        MediaRecord,
        st.integers(0, 0xFFFF_FFFF),
        st.integers(0, 0xFFFF_FFFF),
        st.integers(0, 0xFF),
        st.binary(max_size=80) | st.integers(0, MAX_FRAME_BYTES).map(bytes),
    ),
    max_size=120,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(RECORDS)
def test_any_frames_come_out_as_they_went_in_and_in_order(records: list[MediaRecord]):
    messages = encode_media(records)
    assert all(len(message) <= 64 * 1024 + 4 for message in messages)
    assert [record for message in messages for record in decode_binary_untrusted(message)] == records


REPORTS = st.lists(
    st.builds(
        CallPlayed,
        st.integers(0, 0xFFFF_FFFF),
        st.integers(0, 0xFFFF_FFFF),
        st.integers(0, 0xFFFF),
        st.sampled_from(PlayedReason),
    ),
    max_size=120,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(REPORTS, st.sampled_from([1, 80]))
def test_any_reports_come_out_as_they_went_in_and_in_order(reports: list[CallPlayed], times: int):
    decoded = [decode_binary_untrusted(message) for message in encode_played(reports * times)]
    assert all(isinstance(message, PlayedReports) for message in decoded)
    assert [report for message in decoded for report in message.reports] == reports * times


@settings(max_examples=60, deadline=None, derandomize=True)
@given(RECORDS.filter(bool), st.data())
def test_a_media_message_that_was_cut_or_lengthened_is_refused_whole(records: list[MediaRecord], data: st.DataObject):
    message = encode_media(records)[0]
    wrong = message[: data.draw(st.integers(1, len(message) - 1))] if data.draw(st.booleans()) else message + b"x"
    with pytest.raises(DecodeError):
        decode_binary_untrusted(wrong)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.binary(max_size=64),
    st.sampled_from([b"", b"\x01", b"\x01\x00\x00\x02", b"\x02", b"\x03", b'{"type":"call.end",']),
)
def test_any_bytes_decode_or_are_refused(noise: bytes, start: bytes):
    for decode in (decode_binary_untrusted, decode_transceiver_message_untrusted, decode_agent_message_untrusted):
        with contextlib.suppress(DecodeError):
            decode(start + noise)
