"""What a DTLS 1.2 handshake agrees upon, as pure functions of the hellos.

Server: `choose` out of a ClientHello. Our order of preference decides on suite, group and SRTP profile.
Client: `offer` makes the extensions of our hello, `accept` judges the server's choice.

Required of every peer: extended master secret (RFC 7627 §5.2: without it exported keys are not bound to the handshake),
ephemeral ECDH with an ECDSA certificate of ours, and, where we have SRTP profiles, one of them (RFC 5764 §4.1.1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from protocol.dtls.alerts import AlertDescription
from protocol.dtls.config import DtlsConfig
from protocol.dtls.extensions import (
    EMPTY_RENEGOTIATION_INFO,
    Extensions,
    UseSrtp,
    pack_ec_point_formats,
    pack_numbers16,
    parse_ec_point_formats_untrusted,
    parse_numbers16_untrusted,
    parse_renegotiation_info_untrusted,
    parse_supported_versions_untrusted,
    parse_use_srtp_untrusted,
)
from protocol.dtls.groups import Group
from protocol.dtls.messages import ClientHello, ServerHello
from protocol.dtls.registry import (
    EMPTY_RENEGOTIATION_INFO_SCSV,
    NULL_COMPRESSION,
    UNCOMPRESSED_POINT,
    ExtensionType,
    ProtocolVersion,
)
from protocol.dtls.signatures import OUR_SCHEMES, SCHEMES
from protocol.dtls.suites import CipherSuite
from protocol.errors import DecodeError, RemoteError

__all__ = ["ClientChoice", "ServerChoice", "accept", "choose", "offer"]

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class ServerChoice:
    suite: CipherSuite
    group: Group
    signature_scheme: int
    srtp_profile: int | None
    extensions: Extensions  # of our ServerHello


@dataclass(frozen=True, slots=True)
class ClientChoice:
    suite: CipherSuite
    srtp_profile: int | None


def choose(hello: ClientHello, config: DtlsConfig, srtp_profiles: Sequence[int]) -> ServerChoice:
    extensions = hello.extensions
    _check_version(hello)
    if NULL_COMPRESSION not in hello.compression_methods:
        raise RemoteError(AlertDescription.ILLEGAL_PARAMETER, "compression_methods")
    if ExtensionType.EXTENDED_MASTER_SECRET not in extensions:
        raise _failure("no_extended_master_secret")
    if extensions[ExtensionType.EXTENDED_MASTER_SECRET]:
        raise RemoteError(AlertDescription.DECODE_ERROR, "extension_malformed")
    ours = (suite for suite in config.suites if suite.authentication == "ecdsa")  # as our certificate is
    suite = next((suite for suite in ours if suite.code in hello.cipher_suites), None)
    if suite is None:
        raise _failure("no_common_cipher_suite")
    group = _choose_group(extensions, config.groups)
    schemes = _extension(extensions, ExtensionType.SIGNATURE_ALGORITHMS, parse_numbers16_untrusted) or ()
    scheme = next((scheme for scheme in OUR_SCHEMES if scheme in schemes), None)
    if scheme is None:
        raise _failure("no_common_signature_scheme")
    answer: Extensions = {ExtensionType.EXTENDED_MASTER_SECRET: b""}
    renegotiation = _extension(extensions, ExtensionType.RENEGOTIATION_INFO, parse_renegotiation_info_untrusted)
    if renegotiation:
        raise _failure("renegotiation_info")  # RFC 5746 §3.6: not empty in a first handshake
    if renegotiation is not None or EMPTY_RENEGOTIATION_INFO_SCSV in hello.cipher_suites:
        answer[ExtensionType.RENEGOTIATION_INFO] = EMPTY_RENEGOTIATION_INFO
    if ExtensionType.EC_POINT_FORMATS in extensions:
        answer[ExtensionType.EC_POINT_FORMATS] = pack_ec_point_formats([UNCOMPRESSED_POINT])
    profile = None
    if srtp_profiles:
        offered = _extension(extensions, ExtensionType.USE_SRTP, parse_use_srtp_untrusted)
        profile = next((profile for profile in srtp_profiles if offered and profile in offered.profiles), None)
        if profile is None:
            raise _failure("no_common_srtp_profile")
        answer[ExtensionType.USE_SRTP] = UseSrtp((profile,)).encode()
    return ServerChoice(suite, group, scheme, profile, answer)


def _check_version(hello: ClientHello) -> None:
    """DTLS versions count downwards. A hello with supported_versions (RFC 8446 §4.2.1) says there what it speaks."""
    versions = _extension(hello.extensions, ExtensionType.SUPPORTED_VERSIONS, parse_supported_versions_untrusted)
    if hello.version >> 8 != ProtocolVersion.DTLS_1_2 >> 8 or hello.version > ProtocolVersion.DTLS_1_2:
        raise RemoteError(AlertDescription.PROTOCOL_VERSION, "protocol_version")
    if versions is not None and ProtocolVersion.DTLS_1_2 not in versions:
        raise RemoteError(AlertDescription.PROTOCOL_VERSION, "protocol_version")


def _choose_group(extensions: Extensions, groups: Sequence[Group]) -> Group:
    offered = _extension(extensions, ExtensionType.SUPPORTED_GROUPS, parse_numbers16_untrusted)
    formats = _extension(extensions, ExtensionType.EC_POINT_FORMATS, parse_ec_point_formats_untrusted)
    if formats is not None and UNCOMPRESSED_POINT not in formats:
        raise RemoteError(AlertDescription.ILLEGAL_PARAMETER, "ec_point_formats")  # RFC 8422 §5.1.2
    group = next((group for group in groups if offered is not None and group.code in offered), None)
    if group is None:
        raise _failure("no_common_group")
    return group


def offer(config: DtlsConfig, srtp_profiles: Sequence[int]) -> Extensions:
    extensions: Extensions = {
        ExtensionType.EXTENDED_MASTER_SECRET: b"",
        ExtensionType.RENEGOTIATION_INFO: EMPTY_RENEGOTIATION_INFO,
        ExtensionType.SUPPORTED_GROUPS: pack_numbers16(group.code for group in config.groups),
        ExtensionType.EC_POINT_FORMATS: pack_ec_point_formats([UNCOMPRESSED_POINT]),
        ExtensionType.SIGNATURE_ALGORITHMS: pack_numbers16(SCHEMES),
    }
    if srtp_profiles:
        extensions[ExtensionType.USE_SRTP] = UseSrtp(srtp_profiles).encode()
    return extensions


def accept(hello: ServerHello, offered: Extensions, config: DtlsConfig, srtp_profiles: Sequence[int]) -> ClientChoice:
    extensions = hello.extensions
    if hello.version != ProtocolVersion.DTLS_1_2:
        raise RemoteError(AlertDescription.PROTOCOL_VERSION, "protocol_version")
    suite = next((suite for suite in config.suites if suite.code == hello.cipher_suite), None)
    if suite is None or hello.compression_method != NULL_COMPRESSION:
        raise RemoteError(AlertDescription.ILLEGAL_PARAMETER, "server_hello")
    if not extensions.keys() <= offered.keys():
        raise RemoteError(AlertDescription.UNSUPPORTED_EXTENSION, "unsupported_extension")
    if extensions.get(ExtensionType.EXTENDED_MASTER_SECRET) != b"":
        raise _failure("no_extended_master_secret")
    if _extension(extensions, ExtensionType.RENEGOTIATION_INFO, parse_renegotiation_info_untrusted):
        raise _failure("renegotiation_info")
    profile = None
    if srtp_profiles:
        chosen = _extension(extensions, ExtensionType.USE_SRTP, parse_use_srtp_untrusted)
        if chosen is None:
            raise _failure("no_common_srtp_profile")
        if len(chosen.profiles) != 1 or chosen.profiles[0] not in srtp_profiles or chosen.mki:
            raise RemoteError(AlertDescription.ILLEGAL_PARAMETER, "use_srtp")  # RFC 5764 §4.1.1, §4.1.3
        profile = chosen.profiles[0]
    return ClientChoice(suite, profile)


def _extension(extensions: Extensions, kind: int, parse: Callable[[bytes], _Value]) -> _Value | None:
    data = extensions.get(kind)
    if data is None:
        return None
    try:
        return parse(data)
    except DecodeError as error:
        raise RemoteError(AlertDescription.DECODE_ERROR, error.reason) from None


def _failure(reason: str) -> RemoteError:
    return RemoteError(AlertDescription.HANDSHAKE_FAILURE, reason)
