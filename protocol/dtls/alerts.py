"""Alerts: RFC 5246 §7.2 (and RFC 8446 §6 for the newer codes).

struct { AlertLevel level; AlertDescription description; } Alert;
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from protocol.errors import DecodeError

__all__ = ["Alert", "AlertDescription", "AlertLevel", "parse_alert_untrusted"]


class AlertLevel(IntEnum):
    WARNING = 1
    FATAL = 2


class AlertDescription(IntEnum):
    CLOSE_NOTIFY = 0
    UNEXPECTED_MESSAGE = 10
    BAD_RECORD_MAC = 20
    RECORD_OVERFLOW = 22
    HANDSHAKE_FAILURE = 40
    BAD_CERTIFICATE = 42
    UNSUPPORTED_CERTIFICATE = 43
    ILLEGAL_PARAMETER = 47
    DECODE_ERROR = 50
    DECRYPT_ERROR = 51
    PROTOCOL_VERSION = 70
    INTERNAL_ERROR = 80
    USER_CANCELED = 90
    NO_RENEGOTIATION = 100
    MISSING_EXTENSION = 109
    UNSUPPORTED_EXTENSION = 110


@dataclass(frozen=True, slots=True)
class Alert:
    level: int
    description: int

    @property
    def ends_association(self) -> bool:
        """close_notify ends it whatever its level; otherwise the level decides."""
        return self.level == AlertLevel.FATAL or self.description == AlertDescription.CLOSE_NOTIFY

    def encode(self) -> bytes:
        return bytes((self.level, self.description))


def parse_alert_untrusted(payload: bytes) -> Alert:
    if len(payload) != 2 or payload[0] not in (AlertLevel.WARNING, AlertLevel.FATAL):
        raise DecodeError("alert_malformed")
    return Alert(payload[0], payload[1])
