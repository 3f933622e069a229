"""SRTP and SRTCP of one DTLS association (RFC 3711, RFC 7714, RFC 5764 §4.2), over libsrtp by pylibsrtp's public API.

1. DTLS gives a profile and, for each direction, master key || master salt.
2. Outgoing packets: `protect_rtp`, `protect_rtcp`. A failure there is our bug (LocalError): a sequence number used twice,
   a packet too long, a key used up although `expired` said so.
3. Incoming packets: `unprotect_rtp_untrusted`, `unprotect_rtcp_untrusted`. libsrtp authenticates before it moves the
   rollover counter, the replay window or its table of streams (RFC 3711 §3.3), so a forged packet changes nothing here.

The reasons of DecodeError: `srtp_auth` (wrong tag), `srtp_replay` (index seen before or behind the window: judged before
the tag, so no proof of who sent it), `srtp_malformed` (no such packet can be right), `srtp_ssrc_limit` (one source too
many), `srtp_key_expired`.

Every stream costs libsrtp memory that it never gives back by itself, so the number of sources of one peer is bounded
here: the first `MAX_SOURCES` are kept, later ones refused. Forgetting an old source instead would forget its replay
window, and its old packets would be accepted again.

This is the only module that knows pylibsrtp; working in place in the receive buffer would be a change of this file.
"""

from __future__ import annotations

from collections.abc import Callable

from pylibsrtp import Error, Policy, Session

from protocol.errors import DecodeError, LocalError
from protocol.srtp.profiles import SrtpProfile, profile_lengths

__all__ = ["MAX_PLAIN_LENGTH", "MAX_RTCP_PACKETS", "MAX_RTP_PACKETS", "MAX_SOURCES", "SrtpTransport"]

# Specification constants
_MIN_WINDOW = 64  # RFC 3711 §3.3.2: "at least 64 packets"
MAX_RTP_PACKETS = 1 << 48  # RFC 3711 §9.2: under one master key, of all sources together
MAX_RTCP_PACKETS = 1 << 31

# Implementation constants
MAX_SOURCES = 64  # RTP and RTCP sources of one peer together; a browser call has one or two
MAX_PLAIN_LENGTH = 1352  # pylibsrtp's buffer of 1500 less the longest trailer it allows for (SRTCP: 4 + 16 + 128)
_MAX_WINDOW = 0x7FFF  # half the sequence number space, libsrtp's own limit

# libsrtp numbers its profiles as IANA does, but pylibsrtp does not promise so.
_POLICY = {
    SrtpProfile.SRTP_AES128_CM_HMAC_SHA1_80: Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
    SrtpProfile.SRTP_AEAD_AES_128_GCM: Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
    SrtpProfile.SRTP_AEAD_AES_256_GCM: Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
}

# pylibsrtp tells its errors apart only by their text.
_REASONS = {
    "authentication failure": "srtp_auth",
    "replay check failed (bad index)": "srtp_replay",
    "replay check failed (index too old)": "srtp_replay",
    "packet index is too old to consider": "srtp_replay",
    "can't use key any more": "srtp_key_expired",
}


def _session(profile: SrtpProfile, key: bytes, kind: int, replay_window: int) -> Session:
    policy = Policy(key=key, ssrc_type=kind, srtp_profile=_POLICY[profile])
    policy.window_size = replay_window
    return Session(policy)


class SrtpTransport:
    """Protects what we send with `local`, opens what we receive with `remote`; each is master key || master salt.

    RFC 3711 §9.2 ends a key's life after 2^48 RTP and 2^31 RTCP packets. Those that we send are counted here, those of
    each source that we receive by libsrtp; from then on they are refused. There is no rekeying: such a call has ended.
    """

    __slots__ = (
        "_protect_rtcp",
        "_protect_rtp",
        "_rtcp_left",
        "_rtp_left",
        "_sources",
        "_unprotect_rtcp",
        "_unprotect_rtp",
        "profile",
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
    ) -> None:
        length = sum(profile_lengths(profile))
        if len(local) != length or len(remote) != length:
            raise LocalError(f"SRTP profile {profile} takes {length} bytes of key and salt")
        if not _MIN_WINDOW <= replay_window <= _MAX_WINDOW:
            raise LocalError(f"a replay window of {replay_window} packets is not in {_MIN_WINDOW}..{_MAX_WINDOW}")
        self.profile = SrtpProfile(profile)
        outbound = _session(self.profile, local, Policy.SSRC_ANY_OUTBOUND, replay_window)
        inbound = _session(self.profile, remote, Policy.SSRC_ANY_INBOUND, replay_window)
        self._protect_rtp = outbound.protect
        self._protect_rtcp = outbound.protect_rtcp
        self._unprotect_rtp = inbound.unprotect
        self._unprotect_rtcp = inbound.unprotect_rtcp
        self._rtp_left = max_rtp_packets
        self._rtcp_left = max_rtcp_packets
        self._sources: set[bytes] = set()  # SSRCs that libsrtp holds a receiving stream for

    @property
    def expired(self) -> bool:
        """Our key is used up: nothing can be protected any more."""
        return self._rtp_left <= 0 or self._rtcp_left <= 0

    def protect_rtp(self, packet: bytes) -> bytes:
        """RTP → SRTP. At most MAX_PLAIN_LENGTH bytes, never twice the same sequence number."""
        if self.expired:
            raise LocalError("cannot protect RTP: the key is used up")
        self._rtp_left -= 1
        try:
            return self._protect_rtp(packet)
        except (Error, ValueError, TypeError) as error:
            raise LocalError(f"cannot protect RTP: {error}") from None

    def protect_rtcp(self, packet: bytes) -> bytes:
        """A compound RTCP packet → SRTCP, always encrypted. At most MAX_PLAIN_LENGTH bytes."""
        if self.expired:
            raise LocalError("cannot protect RTCP: the key is used up")
        self._rtcp_left -= 1
        try:
            return self._protect_rtcp(packet)
        except (Error, ValueError, TypeError) as error:
            raise LocalError(f"cannot protect RTCP: {error}") from None

    def unprotect_rtp_untrusted(self, data: bytes | memoryview) -> bytes:
        """SRTP → RTP, or DecodeError. The result is authentic, but its header is still to be parsed with care."""
        return self._unprotect(self._unprotect_rtp, data, 8)

    def unprotect_rtcp_untrusted(self, data: bytes | memoryview) -> bytes:
        """SRTCP → a compound RTCP packet, or DecodeError."""
        return self._unprotect(self._unprotect_rtcp, data, 4)

    def _unprotect(self, unprotect: Callable[[bytes], bytes], data: bytes | memoryview, ssrc_at: int) -> bytes:
        if not isinstance(data, bytes):
            data = bytes(data)
        ssrc = data[ssrc_at : ssrc_at + 4]
        if ssrc not in self._sources and len(self._sources) >= MAX_SOURCES:
            raise DecodeError("srtp_ssrc_limit")
        try:
            packet = unprotect(data)
        except Error as error:
            raise DecodeError(_REASONS.get(str(error), "srtp_malformed")) from None
        except ValueError:
            raise DecodeError("srtp_malformed", "longer than any packet we take") from None
        self._sources.add(ssrc)
        return packet
