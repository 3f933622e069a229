"""Hello extensions: one codec each, and the block that holds them."""

from __future__ import annotations

from protocol.dtls.extensions.block import Extensions, parse_extensions_untrusted, write_extensions
from protocol.dtls.extensions.lists import (
    pack_ec_point_formats,
    pack_numbers16,
    parse_ec_point_formats_untrusted,
    parse_numbers16_untrusted,
    parse_supported_versions_untrusted,
)
from protocol.dtls.extensions.renegotiation_info import EMPTY_RENEGOTIATION_INFO, parse_renegotiation_info_untrusted
from protocol.dtls.extensions.use_srtp import UseSrtp, parse_use_srtp_untrusted

__all__ = [
    "EMPTY_RENEGOTIATION_INFO",
    "Extensions",
    "UseSrtp",
    "pack_ec_point_formats",
    "pack_numbers16",
    "parse_ec_point_formats_untrusted",
    "parse_extensions_untrusted",
    "parse_numbers16_untrusted",
    "parse_renegotiation_info_untrusted",
    "parse_supported_versions_untrusted",
    "parse_use_srtp_untrusted",
    "write_extensions",
]
