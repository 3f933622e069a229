"""Opening an association (RFC 9260 §5): what we know of both ends, and which INITs and cookies to accept.

    INIT →            ← INIT ACK (cookie)            COOKIE ECHO →            ← COOKIE ACK

1. An INIT is answered without keeping anything of it; the cookie carries it.
2. Both sides may send INIT at once (§5.2.1): each answers the other's with its own, one and only, tag and TSN, and
   whichever COOKIE ECHO comes first establishes the association.
3. A cookie that names another tag of the peer than its INIT ACK did (§5.2.4 B: it answered our INIT before it was
   told to open itself) replaces what we knew, as long as we are not established.
4. Restart (§5.2.4 A) is refused: "the endpoint MUST set the existing association to the restart state" is not
   followed, because a DTLS association carries one SCTP association in WebRTC, and ends with it.
"""

from __future__ import annotations

from dataclasses import replace

from protocol.errors import DecodeError
from protocol.sctp.chunks import CauseCode, ChunkType, build_cause
from protocol.sctp.config import SctpConfig
from protocol.sctp.cookie import CookieJar
from protocol.sctp.packet import build_chunk
from protocol.sctp.parameters import Init, build_init, parse_init_untrusted
from protocol.wire import Entropy

__all__ = ["Handshake", "StaleCookie"]

_EXTENSIONS = frozenset({int(ChunkType.RE_CONFIG), int(ChunkType.FORWARD_TSN)})


class StaleCookie(DecodeError):
    """A genuine cookie that is too old; the one cookie fault that the peer is told (§5.2.6)."""

    def __init__(self, tag: int, late: float) -> None:
        super().__init__("cookie_stale")
        self.tag = tag
        self.late = late


class Handshake:
    def __init__(self, config: SctpConfig, entropy: Entropy) -> None:
        self._config = config
        self.local_tag = int.from_bytes(entropy(4), "big") or 1  # zero is not a tag
        self.local_tsn = int.from_bytes(entropy(4), "big")
        self._jar = CookieJar(entropy)
        self.peer: Init | None = None
        self.echo: list[bytes] = []  # COOKIE ECHO, and an ERROR about what we did not recognise

    @property
    def peer_tag(self) -> int:
        return self.peer.tag if self.peer is not None else 0

    @property
    def outbound_streams(self) -> int:
        return min(self._config.streams, self.peer.inbound_streams) if self.peer is not None else 0

    @property
    def can_reset(self) -> bool:
        return self.peer is not None and ChunkType.RE_CONFIG in self.peer.extensions

    def init(self) -> bytes:
        return build_init(ChunkType.INIT, self._own())

    def _own(self) -> Init:
        streams = self._config.streams
        return Init(
            self.local_tag,
            self._config.receive_window,
            streams,
            streams,
            self.local_tsn,
            extensions=_EXTENSIONS,
            forward_tsn=True,
        )

    def answer_init_untrusted(self, value: bytes, established: bool, now: float) -> tuple[int, bytes]:
        """(the tag to answer to, INIT ACK)."""
        peer = parse_init_untrusted(value)
        if established and peer.tag != self.peer_tag:
            raise DecodeError("restart_refused")
        cookie = self._jar.bake(peer, self.local_tag, self.local_tsn, now)
        # What we report must leave the packet within its size; a peer that fills it with unknowns hears of some.
        told: list[bytes] = []
        room = self._config.base_packet_size - 160 - len(cookie)
        for parameter in peer.unrecognized:
            room -= 4 + len(parameter)
            if room < 0:
                break
            told.append(parameter)
        answer = replace(self._own(), cookie=cookie, unrecognized=tuple(told))
        return peer.tag, build_init(ChunkType.INIT_ACK, answer)

    def accept_init_ack_untrusted(self, value: bytes) -> None:
        peer = parse_init_untrusted(value)
        if peer.cookie is None:
            raise DecodeError("init_ack_cookie")
        if len(peer.cookie) > self._config.max_packet_size - 64:
            raise DecodeError("init_ack_cookie")
        self.echo = [build_chunk(ChunkType.COOKIE_ECHO, 0, peer.cookie)]
        if peer.unrecognized:
            causes = build_cause(CauseCode.UNRECOGNIZED_PARAMETERS, b"".join(peer.unrecognized))
            if len(causes) + len(self.echo[0]) < self._config.base_packet_size - 64:
                self.echo.append(build_chunk(ChunkType.ERROR, 0, causes))
        self.peer = replace(peer, cookie=None, unrecognized=())

    def accept_cookie_untrusted(self, value: bytes, established: bool, now: float) -> None:
        """Raises DecodeError unless the cookie is ours, fresh, and of this association (§5.2.4)."""
        cookie = self._jar.taste_untrusted(value, now)
        if cookie.local_tag != self.local_tag:
            raise DecodeError("cookie_tag")
        if established:
            # D: a repeated COOKIE ECHO, however old, whose COOKIE ACK was lost. Anything else would be a restart.
            if cookie.peer.tag != self.peer_tag:
                raise DecodeError("restart_refused")
            return
        if cookie.age > self._config.cookie_lifetime:
            raise StaleCookie(cookie.peer.tag, cookie.age - self._config.cookie_lifetime)
        self.peer = cookie.peer
