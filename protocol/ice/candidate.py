"""ICE candidates as SDP writes them (RFC 8839 §5.1).

    foundation SP component SP transport SP priority SP address SP port SP "typ" SP type
    [SP "raddr" SP address] [SP "rport" SP port] *(SP name SP value)

Candidates that we cannot use (TCP, a component of RTCP, domain names, mDNS `.local` names, types of the future)
parse without failing and say so by `usable`: RFC 8839 §5.1 asks to ignore what is not understood, not to refuse it.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from protocol.address import TransportAddress, pack_address
from protocol.errors import DecodeError

__all__ = ["Candidate", "candidate_priority"]

# Specification constants (RFC 8839 §5.1; type preferences RFC 8445 §5.1.2.2)
COMPONENT_RTP = 1
TYPE_PREFERENCES = {"host": 126, "prflx": 110, "srflx": 100, "relay": 0}
_FOUNDATION = re.compile(r"[A-Za-z0-9+/]{1,32}")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`{|}~A-Za-z0-9]{1,32}")
_ADDRESS = re.compile(r"[0-9A-Za-z.:%_\-]{1,255}")

# Implementation constants
_MAX_LENGTH = 1024  # characters of one candidate line
_MAX_EXTENSIONS = 32


@dataclass(frozen=True, slots=True)
class Candidate:
    foundation: str
    component: int
    transport: str  # as written: "udp", "UDP", "tcp", ...
    priority: int
    address: str  # IP address, domain name or mDNS name, as written
    port: int
    type: str  # host, srflx, prflx, relay, or a future token
    related_address: str | None = None
    related_port: int | None = None
    extensions: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse_untrusted(cls, text: str) -> Candidate:
        """The value of an a=candidate line (a leading `candidate:` is accepted); raises DecodeError."""
        if len(text) > _MAX_LENGTH:
            raise DecodeError("candidate_length")
        tokens = text.removeprefix("candidate:").split(" ")
        if len(tokens) < 8 or len(tokens) % 2 or tokens[6] != "typ":
            raise DecodeError("candidate_syntax")
        foundation, component, transport, priority, address, port, _, kind = tokens[:8]
        pairs = list(zip(tokens[8::2], tokens[9::2]))
        if len(pairs) > _MAX_EXTENSIONS:
            raise DecodeError("candidate_extensions")
        if not (_FOUNDATION.fullmatch(foundation) and _TOKEN.fullmatch(transport) and _TOKEN.fullmatch(kind)):
            raise DecodeError("candidate_syntax")
        related_address = _address(pairs.pop(0)[1]) if pairs and pairs[0][0] == "raddr" else None
        related_port = _number(pairs.pop(0)[1], 65535) if pairs and pairs[0][0] == "rport" else None
        if not all(_visible(name) and _visible(value) for name, value in pairs):
            raise DecodeError("candidate_syntax")
        return cls(
            foundation=foundation,
            component=_number(component, 256),
            transport=transport,
            priority=_number(priority, 2**32 - 1),
            address=_address(address),
            port=_number(port, 65535),
            type=kind,
            related_address=related_address,
            related_port=related_port,
            extensions=tuple(pairs),
        )

    def serialize(self) -> str:
        """The value of an a=candidate line, without `candidate:`."""
        parts = [
            f"{self.foundation} {self.component} {self.transport} {self.priority} {self.address} {self.port}",
            f"typ {self.type}",
        ]
        if self.related_address is not None:
            parts.append(f"raddr {self.related_address}")
        if self.related_port is not None:
            parts.append(f"rport {self.related_port}")
        parts += [f"{name} {value}" for name, value in self.extensions]
        return " ".join(parts)

    @property
    def usable(self) -> bool:
        """True if a UDP datagram of the only component can be sent to it: RTCP is multiplexed, nothing is resolved."""
        return self.transport_address is not None

    @property
    def transport_address(self) -> TransportAddress | None:
        """Where to send; None if not `usable`."""
        if self.transport.lower() != "udp" or self.component != COMPONENT_RTP or self.port == 0:
            return None
        if self.type not in TYPE_PREFERENCES:
            return None
        try:
            address = ipaddress.ip_address(self.address)
        except ValueError:
            return None
        if address.is_unspecified or address.is_multicast:
            return None
        return pack_address(self.address, self.port)


def candidate_priority(kind: str, *, local_preference: int = 65535, component: int = COMPONENT_RTP) -> int:
    """RFC 8445 §5.1.2.1."""
    return (TYPE_PREFERENCES[kind] << 24) | (local_preference << 8) | (256 - component)


def _number(text: str, maximum: int) -> int:
    # Ten digits bound the conversion; `isascii` keeps the digits of other scripts out.
    if not (text.isascii() and text.isdigit() and len(text) <= 10) or (value := int(text)) > maximum:
        raise DecodeError("candidate_number")
    return value


def _address(text: str) -> str:
    if not _ADDRESS.fullmatch(text):
        raise DecodeError("candidate_address")
    return text


def _visible(text: str) -> bool:
    # RFC 8839: cand-extension names and values are 1*VCHAR in substance; empty ones are doubled spaces.
    return bool(text) and text.isascii() and text.isprintable()
