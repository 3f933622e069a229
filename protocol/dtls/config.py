"""What can be set about a DTLS endpoint."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.dtls.groups import GROUPS, Group
from protocol.dtls.suites import SUITES, CipherSuite
from protocol.errors import LocalError

__all__ = ["DtlsConfig"]

_MINIMUM_MTU = 128  # room for a record of each kind with some bytes of a message in it


@dataclass(frozen=True, slots=True)
class DtlsConfig:
    suites: tuple[CipherSuite, ...] = SUITES  # preference order
    groups: tuple[Group, ...] = GROUPS  # preference order
    mtu: int = 1200  # bytes of UDP payload
    mtu_fallbacks: tuple[int, ...] = (548, 256)  # one after the other, if large datagrams seem not to arrive
    mtu_attempts: int = 3  # sendings of a flight in vain before the next fallback (RFC 6347 §4.1.1.1)
    retransmit_initial: float = 0.05  # doubling; RFC 6347 §4.2.4.1 says 1 s, browsers begin with 50 ms
    retransmit_maximum: float = 3.2
    flight_sendings: int = 24  # of one flight, whatever made us send it
    handshake_timeout: float = 30.0  # the session has its own, shorter deadline
    last_flight_memory: float = 120.0  # RFC 6347 §4.2.4: at least twice the maximum segment lifetime of 60 s or so

    def __post_init__(self) -> None:
        if not self.suites or not self.groups:
            raise LocalError("a DTLS endpoint needs a cipher suite and a group")
        if min((self.mtu, *self.mtu_fallbacks)) < _MINIMUM_MTU:
            raise LocalError(f"an MTU below {_MINIMUM_MTU} leaves no room")
