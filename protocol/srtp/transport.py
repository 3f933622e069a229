"""SRTP and SRTCP of one DTLS association (RFC 3711, RFC 7714, RFC 5764 §4.2), over libsrtp (`protocol.srtp.library`).

1. DTLS gives a profile and, for each direction, master key || master salt.
2. Outgoing packets: `protect_rtp`, `protect_rtcp`. A failure there is our bug (LocalError): a sequence number used twice,
   a packet too long, a key used up although `expired` said so.
3. Incoming packets: `unprotect_rtp_untrusted`, `unprotect_rtcp_untrusted`. libsrtp authenticates before it moves the
   rollover counter, the replay window or its table of streams (RFC 3711 §3.3), so a forged packet changes nothing here.
4. The same `in place`, in an arena: what the media path uses. A packet that cannot be opened is worth nothing
   afterwards: AES-GCM decrypts while it authenticates.

The reasons of DecodeError: `srtp_auth` (wrong tag), `srtp_replay` (index seen before or behind the window: judged before
the tag, so no proof of who sent it), `srtp_malformed` (no such packet can be right), `srtp_ssrc_limit` (one source too
many), `srtp_key_expired`.

Every stream costs libsrtp memory that it never gives back by itself, so the number of sources of one peer is bounded
here: the first `MAX_SOURCES` are kept, later ones refused. Forgetting an old source instead would forget its replay
window, and its old packets would be accepted again.
"""

from __future__ import annotations

from protocol.errors import DecodeError, LocalError
from protocol.srtp.library import ERRORS, LIBRARIES, RTCP_TRAILER, RTP_TRAILER, Arena, Process, SrtpLibrary
from protocol.srtp.profiles import SrtpProfile, profile_lengths

__all__ = [
    "MAX_PLAIN_LENGTH",
    "MAX_PROTECTED_LENGTH",
    "MAX_RTCP_PACKETS",
    "MAX_RTP_PACKETS",
    "MAX_SOURCES",
    "SrtpTransport",
    "reason_of",
]

# Specification constants
_MIN_WINDOW = 64  # RFC 3711 §3.3.2: "at least 64 packets"
MAX_RTP_PACKETS = 1 << 48  # RFC 3711 §9.2: under one master key, of all sources together
MAX_RTCP_PACKETS = 1 << 31

# Implementation constants
MAX_SOURCES = 64  # RTP and RTCP sources of one peer together; a browser call has one or two
MAX_PLAIN_LENGTH = 1352  # pylibsrtp's buffer of 1500 less the longest trailer it allows for (SRTCP: 4 + 16 + 128)
MAX_PROTECTED_LENGTH = 1500
_MAX_WINDOW = 0x7FFF  # half the sequence number space, libsrtp's own limit

# libsrtp's errors by the words that pylibsrtp has for them.
_REASONS = {
    "authentication failure": "srtp_auth",
    "replay check failed (bad index)": "srtp_replay",
    "replay check failed (index too old)": "srtp_replay",
    "packet index is too old to consider": "srtp_replay",
    "can't use key any more": "srtp_key_expired",
}


def reason_of(status: int) -> str:
    """The word for what the library says of a packet that it does not open."""
    return _REASONS.get(ERRORS[status], "srtp_malformed")


class SrtpTransport:
    """Protects what we send with `local`, opens what we receive with `remote`; each is master key || master salt.

    RFC 3711 §9.2 ends a key's life after 2^48 RTP and 2^31 RTCP packets. Those that we send are counted here, those of
    each source that we receive by libsrtp; from then on they are refused. There is no rekeying: such a call has ended.
    """

    __slots__ = (
        "_library",
        "_sources",
        "inbound",
        "outbound",
        "profile",
        "rtcp_left",
        "rtp_left",
    )

    def __init__(
        self,
        profile: int,
        local: bytes,
        remote: bytes,
        replay_window: int = 1024,
        *,
        max_rtp_packets: int = MAX_RTP_PACKETS,
        max_rtcp_packets: int = MAX_RTCP_PACKETS,
        library: SrtpLibrary | None = None,
    ) -> None:
        length = sum(profile_lengths(profile))
        if len(local) != length or len(remote) != length:
            raise LocalError(f"SRTP profile {profile} takes {length} bytes of key and salt")
        if not _MIN_WINDOW <= replay_window <= _MAX_WINDOW:
            raise LocalError(f"a replay window of {replay_window} packets is not in {_MIN_WINDOW}..{_MAX_WINDOW}")
        self.profile = SrtpProfile(profile)
        self._library = library or LIBRARIES[0]
        self.outbound = self._library.keyed(self.profile, local, outbound=True, window=replay_window)
        self.inbound = self._library.keyed(self.profile, remote, outbound=False, window=replay_window)
        self.rtp_left = (
            max_rtp_packets if max_rtcp_packets > 0 else 0
        )  # 0 as well when the key has protected all the RTCP that it may
        self.rtcp_left = max_rtcp_packets
        self._sources: set[bytes] = set()  # SSRCs that libsrtp holds a receiving stream for

    @property
    def expired(self) -> bool:
        """Our key is used up: nothing can be protected any more."""
        return self.rtp_left <= 0

    def protect_rtp(self, packet: bytes) -> bytes:
        """RTP → SRTP. At most MAX_PLAIN_LENGTH bytes, never twice the same sequence number."""
        arena = self._library.arena(bytearray(packet).ljust(len(packet) + RTP_TRAILER))
        return bytes(arena.view[: self.protect_rtp_in_place(arena, 0, len(packet))])

    def protect_rtcp(self, packet: bytes) -> bytes:
        """A compound RTCP packet → SRTCP, always encrypted. At most MAX_PLAIN_LENGTH bytes."""
        arena = self._library.arena(bytearray(packet).ljust(len(packet) + RTCP_TRAILER))
        return bytes(arena.view[: self.protect_rtcp_in_place(arena, 0, len(packet))])

    def protect_rtp_in_place(self, arena: Arena, offset: int, length: int) -> int:
        """RTP at `offset` in the arena → SRTP there; its length. Behind the packet there must be RTP_TRAILER bytes of room."""
        self._begin(arena, offset, length, RTP_TRAILER, "RTP")
        self.rtp_left -= 1
        return _protect(self.outbound.protect_rtp, arena, offset, "RTP")

    def protect_rtcp_in_place(self, arena: Arena, offset: int, length: int) -> int:
        """The same for RTCP, with RTCP_TRAILER bytes of room."""
        self._begin(arena, offset, length, RTCP_TRAILER, "RTCP")
        self.rtcp_left -= 1
        if self.rtcp_left <= 0:
            self.rtp_left = 0  # one key for both
        return _protect(self.outbound.protect_rtcp, arena, offset, "RTCP")

    def unprotect_rtp_untrusted(self, data: bytes | memoryview) -> bytes:
        """SRTP → RTP, or DecodeError. The result is authentic, but its header is still to be parsed with care."""
        arena = self._library.arena(bytearray(data or b"\0"))
        return bytes(arena.view[: self.unprotect_rtp_in_place_untrusted(arena, 0, len(data))])

    def unprotect_rtcp_untrusted(self, data: bytes | memoryview) -> bytes:
        """SRTCP → a compound RTCP packet, or DecodeError."""
        arena = self._library.arena(bytearray(data or b"\0"))
        return bytes(arena.view[: self.unprotect_rtcp_in_place_untrusted(arena, 0, len(data))])

    def unprotect_rtp_in_place_untrusted(self, arena: Arena, offset: int, length: int) -> int:
        """SRTP at `offset` in the arena → RTP there; its length, which is less. Or DecodeError."""
        return self._unprotect(self.inbound.unprotect_rtp, arena, offset, length, 8)

    def unprotect_rtcp_in_place_untrusted(self, arena: Arena, offset: int, length: int) -> int:
        """The same for SRTCP."""
        return self._unprotect(self.inbound.unprotect_rtcp, arena, offset, length, 4)

    def _begin(self, arena: Arena, offset: int, length: int, trailer: int, kind: str) -> None:
        if self.expired:
            raise LocalError(f"cannot protect {kind}: the key is used up")
        if length > MAX_PLAIN_LENGTH or offset < 0 or length < 0 or offset + length + trailer > arena.size:
            raise LocalError(f"cannot protect {kind}: no room for {length} bytes at {offset} of {arena.size}")
        arena.length[0] = length

    def _unprotect(self, unprotect: Process, arena: Arena, offset: int, length: int, ssrc_at: int) -> int:
        if offset < 0 or length < 0 or offset + length > arena.size:
            raise LocalError(f"no {length} bytes at {offset} of {arena.size}")
        if length > MAX_PROTECTED_LENGTH:
            raise DecodeError("srtp_malformed", "longer than any packet we take")
        ssrc = bytes(arena.view[offset + ssrc_at : offset + ssrc_at + 4])
        if ssrc not in self._sources and len(self._sources) >= MAX_SOURCES:
            raise DecodeError("srtp_ssrc_limit")
        arena.length[0] = length
        if status := unprotect(arena.base + offset, arena.length):
            raise DecodeError(reason_of(status))
        self._sources.add(ssrc)
        return int(arena.length[0])


def _protect(protect: Process, arena: Arena, offset: int, kind: str) -> int:
    if status := protect(arena.base + offset, arena.length):
        raise LocalError(f"cannot protect {kind}: {ERRORS[status]}")
    return int(arena.length[0])
