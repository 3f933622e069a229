"""renegotiation_info: RFC 5746 §3.2. Always empty with us: the first handshake is the only one."""

from __future__ import annotations

from protocol.wire import Reader

__all__ = ["EMPTY_RENEGOTIATION_INFO", "parse_renegotiation_info_untrusted"]

EMPTY_RENEGOTIATION_INFO = b"\0"


def parse_renegotiation_info_untrusted(data: bytes) -> bytes:
    """The renegotiated_connection field."""
    reader = Reader(data)
    value = reader.opaque(1)
    reader.finish()
    return value
