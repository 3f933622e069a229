"""STUN (RFC 8489): messages, their integrity, and the short ways for the checks of a call."""

from protocol.stun.attributes import ATTRIBUTES, Attribute
from protocol.stun.binding import (
    Binding,
    authenticate,
    binding_error,
    binding_request,
    binding_success,
    scan_binding_untrusted,
)
from protocol.stun.integrity import message_fingerprint, message_integrity, message_integrity_sha256
from protocol.stun.message import Class, Message, Method, parse_message_untrusted
from protocol.stun.peek import peek_username_untrusted

__all__ = [
    "ATTRIBUTES",
    "Attribute",
    "Binding",
    "Class",
    "Message",
    "Method",
    "authenticate",
    "binding_error",
    "binding_request",
    "binding_success",
    "message_fingerprint",
    "message_integrity",
    "message_integrity_sha256",
    "parse_message_untrusted",
    "peek_username_untrusted",
    "scan_binding_untrusted",
]
