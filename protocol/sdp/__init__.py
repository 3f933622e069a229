"""Session descriptions (RFC 8866) as WebRTC uses them: parse without loss, read an offer, answer it.

    offer = read_offer(parse_untrusted(body))
    answered = answer(offer, capabilities)
    agreement = Agreement.reached(capabilities, answered)
    answered, agreement = answer_again(read_offer(…), agreement, fresh_credentials)

Each step raises `OfferRefused` with a code, a sentence and the line at fault; `OfferUnsupported` if nothing is wrong with
the offer but that we cannot do what it asks.
"""

from __future__ import annotations

from protocol.sdp.answer import answer
from protocol.sdp.attributes import Direction, HeaderExtension, PayloadFormat
from protocol.sdp.create import create_offer, read_answer
from protocol.sdp.errors import OfferRefused, OfferUnsupported
from protocol.sdp.fragment import FRAGMENT_TYPE, IceFragment, parse_fragment_untrusted, write_fragment
from protocol.sdp.grammar import MAX_BYTES, Line, MediaSection, Section, SessionDescription, parse_untrusted
from protocol.sdp.negotiation import (
    Answer,
    AnsweredSection,
    Capabilities,
    Negotiated,
    NegotiatedAudio,
    NegotiatedData,
    Redundancy,
)
from protocol.sdp.offer import AudioOffer, DataOffer, Offer, OfferedSection, read_offer
from protocol.sdp.reoffer import Agreement, answer_again
from protocol.sdp.transport import Transport

__all__ = [
    "FRAGMENT_TYPE",
    "MAX_BYTES",
    "Agreement",
    "Answer",
    "AnsweredSection",
    "AudioOffer",
    "Capabilities",
    "DataOffer",
    "Direction",
    "HeaderExtension",
    "IceFragment",
    "Line",
    "MediaSection",
    "Negotiated",
    "NegotiatedAudio",
    "NegotiatedData",
    "Offer",
    "OfferRefused",
    "OfferUnsupported",
    "OfferedSection",
    "PayloadFormat",
    "Redundancy",
    "Section",
    "SessionDescription",
    "Transport",
    "answer",
    "answer_again",
    "create_offer",
    "parse_fragment_untrusted",
    "parse_untrusted",
    "read_answer",
    "read_offer",
    "write_fragment",
]
