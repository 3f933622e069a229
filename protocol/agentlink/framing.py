"""The binary messages of the agent link: audio frames of many calls in one message, and data-channel messages.

    media:  0x01 | zero u8 | count u16 | heads, `count` times:  handle u32 | RTP time u32 | flags u8 | zero u8 | length u16
            | the payloads, one after another
    played: 0x03 | zero u8 | count u16 | reports, `count` times:  handle u32 | RTP time u32 | reason u8 | zero u8 | ms u16
    data:   0x02 | handle u32 | channel u16 | flags u8 (bit 0: text, UTF-8; bit 1: add 0x10000 to the channel) | payload

All integers are big-endian. A media message holds the frames of all calls that were gathered in one wake: a WebSocket
message costs nearly the same whatever its size, so frames are gathered, but never delayed when the line is idle.
The heads come first, so that all of them are written, and read, as one array.
A played report says that the agent's audio was really played up to that RTP time, and how many milliseconds still wait.
RTP time of uplink frames is the caller's; that of downlink frames is the agent's own timeline, which starts at 0 with
each call and has no holes (960 more for each 20 ms of Opus, whose clock is 48 kHz; RFC 7587 §4.1).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from enum import IntEnum, IntFlag
from typing import NamedTuple, TypeAlias

from protocol.agentlink.messages import FIRST_CONTROLLER, PlayedReason
from protocol.errors import DecodeError, LocalError

__all__ = [
    "MAX_DATA_BYTES",
    "MAX_FRAME_BYTES",
    "MAX_MESSAGE_BYTES",
    "BinaryMessage",
    "CallPlayed",
    "DataMessage",
    "Kind",
    "MediaFlags",
    "MediaRecord",
    "PlayedReports",
    "decode_binary_untrusted",
    "encode_data",
    "encode_media",
    "encode_played",
]

# Specification constants.
COUNTED = struct.Struct("!BxH")  # kind, count
HEAD = struct.Struct("!III")  # handle, RTP time, flags and length; of a report: reason and milliseconds
DATA_HEADER = struct.Struct("!BIHB")  # kind, handle, channel, flags
REASONS = (PlayedReason.PROGRESS, PlayedReason.DRAINED, PlayedReason.FLUSHED)  # by their number on the wire
TEXT, CONTROLLER = 0x01, 0x02  # flags of data
MAX_FRAME_BYTES = 1500  # an audio frame came in, or goes out, in one datagram
MAX_DATA_BYTES = 256 * 1024  # the largest data-channel message that our answers announce (a=max-message-size)
MAX_MESSAGE_BYTES = MAX_DATA_BYTES + 1024  # of any WebSocket message on this link

# Implementation constants. Where a media message is split; a wake of many calls rarely gets there.
MEDIA_SPLIT_BYTES = 64 * 1024
SPLIT_REPORTS = 5000
MAX_RECORDS = MEDIA_SPLIT_BYTES // HEAD.size  # of media in a message that we take: no sender of ours puts more into one


class Kind(IntEnum):
    MEDIA = 0x01
    DATA = 0x02
    PLAYED = 0x03


class MediaFlags(IntFlag):
    """Uplink: MARKER is the RTP marker bit (a talkspurt begins). GAP says that frames before this one were lost: how many,
    the RTP time tells. FEC, with GAP: the payload holds a copy of the last one lost (Opus in-band FEC, RFC 6716 §2.1.7).
    RECOVERED: this frame was lost, and came as a resent packet or as a copy in another one."""

    MARKER = 0x01
    GAP = 0x02
    RECOVERED = 0x04
    FEC = 0x08


class MediaRecord(NamedTuple):
    """One audio frame of one call. A tuple, not a dataclass: it is made for each frame of each call."""

    handle: int
    rtp_time: int
    flags: int
    payload: bytes


class DataMessage(NamedTuple):
    """One message of a data channel, or of a controller; `str` is text, `bytes` is binary; both may be empty."""

    handle: int
    channel: int
    data: str | bytes


class CallPlayed(NamedTuple):
    """T→A. Audio up to `rtp_time` of the agent's timeline was really played; `buffered_ms` of it still waits."""

    handle: int
    rtp_time: int
    buffered_ms: int
    reason: PlayedReason


class PlayedReports(NamedTuple):
    reports: tuple[CallPlayed, ...]


BinaryMessage: TypeAlias = tuple[MediaRecord, ...] | PlayedReports | DataMessage


def encode_media(records: Iterable[MediaRecord]) -> list[bytes]:
    """The records in order, in as few messages as the split size allows; no message for no records."""
    messages: list[bytes] = []
    heads: list[int] = []
    payloads: list[bytes] = []
    size = 0
    for handle, rtp_time, flags, payload in records:
        length = len(payload)
        if length > MAX_FRAME_BYTES:
            raise LocalError(f"a frame of {length} bytes is over the bound of {MAX_FRAME_BYTES}")
        size += HEAD.size + length
        if size > MEDIA_SPLIT_BYTES and payloads:
            messages.append(_join_media(heads, payloads))
            heads, payloads, size = [], [], HEAD.size + length
        heads += (handle, rtp_time & 0xFFFF_FFFF, flags << 24 | length)
        payloads.append(payload)
    if payloads:
        messages.append(_join_media(heads, payloads))
    return messages


def _join_media(heads: list[int], payloads: list[bytes]) -> bytes:
    first = COUNTED.pack(Kind.MEDIA, len(payloads)) + struct.pack(f"!{len(heads)}I", *heads)
    return first + b"".join(payloads)


def encode_played(reports: Sequence[CallPlayed]) -> list[bytes]:
    """The reports in order, in few messages; none for none."""
    messages: list[bytes] = []
    for at in range(0, len(reports), SPLIT_REPORTS):
        words: list[int] = []
        for handle, rtp_time, buffered_ms, reason in reports[at : at + SPLIT_REPORTS]:
            words += (handle, rtp_time & 0xFFFF_FFFF, REASONS.index(reason) << 24 | min(buffered_ms, 0xFFFF))
        messages.append(COUNTED.pack(Kind.PLAYED, len(words) // 3) + struct.pack(f"!{len(words)}I", *words))
    return messages


def encode_data(message: DataMessage) -> bytes:
    """One message of a channel."""
    handle, channel, data = message
    flags = TEXT if isinstance(data, str) else 0
    if channel >= FIRST_CONTROLLER:
        channel, flags = channel - FIRST_CONTROLLER, flags | CONTROLLER
    payload = data.encode() if isinstance(data, str) else data
    if len(payload) > MAX_DATA_BYTES:
        raise LocalError(f"a data message of {len(payload)} bytes is over the bound of {MAX_DATA_BYTES}")
    return DATA_HEADER.pack(Kind.DATA, handle, channel, flags) + payload


def decode_binary_untrusted(data: bytes) -> BinaryMessage:
    """A tuple of media records, reports of what was played, or one data message.

    Nothing of a message is used when any part of it is wrong. Reasons: link_oversize, link_empty, link_unknown_kind,
    link_truncated, link_trailing_bytes, link_frame_oversize, link_frame_count, link_played_reason, link_not_utf8.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise DecodeError("link_oversize")
    if not data:
        raise DecodeError("link_empty")
    if data[0] == Kind.MEDIA:
        return _decode_media(data)
    if data[0] == Kind.DATA:
        return _decode_data(data)
    if data[0] == Kind.PLAYED:
        return _decode_played(data)
    raise DecodeError("link_unknown_kind")


def _heads(data: bytes) -> memoryview:
    if len(data) < COUNTED.size:
        raise DecodeError("link_truncated")
    _, count = COUNTED.unpack_from(data)
    heads = memoryview(data)[COUNTED.size : COUNTED.size + count * HEAD.size]
    if len(heads) < count * HEAD.size:
        raise DecodeError("link_truncated")
    return heads


def _decode_played(data: bytes) -> PlayedReports:
    heads = _heads(data)
    if COUNTED.size + len(heads) != len(data):
        raise DecodeError("link_trailing_bytes")
    reports: list[CallPlayed] = []
    for handle, rtp_time, rest in HEAD.iter_unpack(heads):
        if rest >> 24 >= len(REASONS):
            raise DecodeError("link_played_reason")
        reports.append(CallPlayed(handle, rtp_time, rest & 0xFFFF, REASONS[rest >> 24]))
    return PlayedReports(tuple(reports))


def _decode_media(data: bytes) -> tuple[MediaRecord, ...]:
    data = bytes(data)  # no copy, if it is bytes: so are its slices
    heads = _heads(data)
    if len(heads) > MAX_RECORDS * HEAD.size:  # its frames would be played in one turn, and all calls wait for it
        raise DecodeError("link_frame_count")
    position, end = COUNTED.size + len(heads), len(data)
    records: list[MediaRecord] = []
    append, new_tuple = records.append, tuple.__new__  # MediaRecord's own constructor takes three times as long
    for handle, rtp_time, rest in HEAD.iter_unpack(heads):
        length = rest & 0xFFFF
        if length > MAX_FRAME_BYTES:
            raise DecodeError("link_frame_oversize")
        start = position
        position += length
        if position > end:
            raise DecodeError("link_truncated")
        append(new_tuple(MediaRecord, (handle, rtp_time, rest >> 24, data[start:position])))
    if position != end:
        raise DecodeError("link_trailing_bytes")
    return tuple(records)


def _decode_data(data: bytes) -> DataMessage:
    if len(data) < DATA_HEADER.size:
        raise DecodeError("link_truncated")
    _, handle, channel, flags = DATA_HEADER.unpack_from(data)
    payload = bytes(data[DATA_HEADER.size :])
    if len(payload) > MAX_DATA_BYTES:
        raise DecodeError("link_oversize")
    if flags & CONTROLLER:
        channel += FIRST_CONTROLLER
    if not flags & TEXT:
        return DataMessage(handle, channel, payload)
    try:
        return DataMessage(handle, channel, payload.decode())
    except UnicodeDecodeError:
        raise DecodeError("link_not_utf8") from None
