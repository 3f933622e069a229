"""ICE (RFC 8445): who may send us media, and from where."""

from protocol.ice.candidate import Candidate, candidate_priority
from protocol.ice.credentials import IceCredentials

__all__ = ["Candidate", "IceCredentials", "candidate_priority"]
