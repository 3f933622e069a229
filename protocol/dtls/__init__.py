"""DTLS with SRTP keys: RFC 6347, RFC 5246, RFC 5764. Version 1.2, both roles, over the `cryptography` primitives.

`DtlsEndpoint` is what a peer holds, `Identity` our certificate, `Fingerprint` what signalling says of the other's.
`CookieExchange` goes before an endpoint of ours that listens without ICE; nothing here does.
Files that end in 12 belong to DTLS 1.2 alone; the others know no version.
"""

from __future__ import annotations

from protocol.dtls.config import DtlsConfig
from protocol.dtls.cookies import CookieExchange, VerifiedHello
from protocol.dtls.endpoint import DtlsEndpoint
from protocol.dtls.events import ApplicationData, Closed, Connected, Datagram, Output, Role, SrtpKeys
from protocol.dtls.fingerprint import Fingerprint
from protocol.dtls.groups import GROUPS, Group
from protocol.dtls.identity import Identity
from protocol.dtls.suites import SUITES, CipherSuite

__all__ = [
    "GROUPS",
    "SUITES",
    "ApplicationData",
    "CipherSuite",
    "Closed",
    "Connected",
    "CookieExchange",
    "Datagram",
    "DtlsConfig",
    "DtlsEndpoint",
    "Fingerprint",
    "Group",
    "Identity",
    "Output",
    "Role",
    "SrtpKeys",
    "VerifiedHello",
]
