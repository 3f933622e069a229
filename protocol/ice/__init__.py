"""ICE (RFC 8445): who may send us media, and from where."""

from protocol.ice.candidate import Candidate, candidate_priority
from protocol.ice.credentials import IceCredentials
from protocol.ice.events import ConsentLate, ConsentRestored, Failed, IceOutput, PathSelected, RestartCompleted, SendTo
from protocol.ice.full import IceFull
from protocol.ice.full_state import IceFullConfig, Nomination
from protocol.ice.lite import IceLite, IceLiteConfig

__all__ = [
    "Candidate",
    "ConsentLate",
    "ConsentRestored",
    "Failed",
    "IceCredentials",
    "IceFull",
    "IceFullConfig",
    "IceLite",
    "IceLiteConfig",
    "IceOutput",
    "Nomination",
    "PathSelected",
    "RestartCompleted",
    "SendTo",
    "candidate_priority",
]
