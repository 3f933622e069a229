"""libsrtp's output against RFC 3711 and RFC 7714 written out here from AES and HMAC, itself checked by the RFCs' vectors."""

from __future__ import annotations

import hmac
import struct

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocol.errors import DecodeError
from protocol.srtp import SrtpProfile, SrtpTransport, profile_lengths

HEADER = struct.Struct("!BBHII")
AEAD = [SrtpProfile.SRTP_AEAD_AES_128_GCM, SrtpProfile.SRTP_AEAD_AES_256_GCM]


def counter_mode(key: bytes, counter: int, data: bytes) -> bytes:
    return Cipher(algorithms.AES(key), modes.CTR(counter.to_bytes(16, "big"))).encryptor().update(data)


def derive(master_key: bytes, master_salt: bytes, label: int, length: int) -> bytes:
    """RFC 3711 §4.3: key derivation rate 0. A 96-bit salt (RFC 7714 §11) is padded on the right to 112 bits."""
    x = int.from_bytes(master_salt.ljust(14, b"\0"), "big") ^ label << 48
    return counter_mode(master_key, x << 16, bytes(length))


def counter_iv(salt: bytes, ssrc: int, index: int) -> int:
    return int.from_bytes(salt, "big") << 16 ^ ssrc << 64 ^ index << 16  # RFC 3711 §4.1.1


def protect_rtp_cm(master_key: bytes, master_salt: bytes, packet: bytes, rollover: int) -> bytes:
    key, auth, salt = (derive(master_key, master_salt, label, n) for label, n in ((0, 16), (1, 20), (2, 14)))
    _, _, sequence, _, ssrc = HEADER.unpack_from(packet)
    body = packet[:12] + counter_mode(key, counter_iv(salt, ssrc, rollover << 16 | sequence), packet[12:])
    return body + hmac.digest(auth, body + struct.pack("!I", rollover), "sha1")[:10]


def protect_rtcp_cm(master_key: bytes, master_salt: bytes, packet: bytes, index: int) -> bytes:
    key, auth, salt = (derive(master_key, master_salt, label, n) for label, n in ((3, 16), (4, 20), (5, 14)))
    ssrc = int.from_bytes(packet[4:8], "big")
    body = packet[:8] + counter_mode(key, counter_iv(salt, ssrc, index), packet[8:])
    body += struct.pack("!I", 1 << 31 | index)
    return body + hmac.digest(auth, body, "sha1")[:10]


def seal_rtp_gcm(key: bytes, salt: bytes, packet: bytes, rollover: int) -> bytes:
    """RFC 7714 §8.1, with session keys."""
    _, _, sequence, _, ssrc = HEADER.unpack_from(packet)
    mask = int.from_bytes(salt, "big")
    iv = (ssrc << 48 | rollover << 16 | sequence) ^ mask
    return packet[:12] + AESGCM(key).encrypt(iv.to_bytes(12, "big"), packet[12:], packet[:12])


def seal_rtcp_gcm(key: bytes, salt: bytes, packet: bytes, index: int) -> bytes:
    """RFC 7714 §9.1, §9.2: the word with E flag and index is authenticated, and sent last."""
    word = struct.pack("!I", 1 << 31 | index)
    iv = (int.from_bytes(packet[4:8], "big") << 48 | index) ^ int.from_bytes(salt, "big")
    return packet[:8] + AESGCM(key).encrypt(iv.to_bytes(12, "big"), packet[8:], packet[:8] + word) + word


def protect_rtcp_cm_unencrypted(master_key: bytes, master_salt: bytes, packet: bytes, index: int) -> bytes:
    """RFC 3711 §3.4 with the E flag 0: authenticated, and not encrypted."""
    body = packet + struct.pack("!I", index)
    return body + hmac.digest(derive(master_key, master_salt, 4, 20), body, "sha1")[:10]


def transport(profile: int, master_key: bytes, master_salt: bytes) -> SrtpTransport:
    return SrtpTransport(profile, master_key + master_salt, bytes(sum(profile_lengths(profile))))


def test_the_reference_derives_the_keys_of_rfc_3711_appendix_b3():
    key, salt = bytes.fromhex("E1F97A0D3E018BE0D64FA32C06DE4139"), bytes.fromhex("0EC675AD498AFEEBB6960B3AABE6")
    assert derive(key, salt, 0, 16).hex().upper() == "C61E7A93744F39EE10734AFE3FF7A087"
    assert derive(key, salt, 2, 14).hex().upper() == "30CBBC08863D8C85D49DB34A9AE1"
    assert derive(key, salt, 1, 20).hex().upper() == "CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"


def test_the_reference_makes_the_keystream_of_rfc_3711_appendix_b2():
    key, salt = bytes.fromhex("2B7E151628AED2A6ABF7158809CF4F3C"), bytes.fromhex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD")
    stream = counter_mode(key, counter_iv(salt, 0, 0), bytes(32)).hex().upper()
    assert stream == "E03EAD0935C95E80E166B16DD92B4EB4D23513162B02D0F72A43A2FE4A5F97AB"


def test_the_reference_seals_the_packet_of_rfc_7714_section_16_1_1():
    header = bytes.fromhex("8040f17b8041f8d35501a0b2")
    plain = b"Gallia est omnis divisa in partes tres"
    sealed = seal_rtp_gcm(bytes(range(16)), b"Quid pro quo", header + plain, 0)
    assert sealed[12:].hex() == (
        "f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833899d7f27beb16a9152cf765ee4390cce"
    )


def test_the_reference_seals_the_packet_of_rfc_7714_section_16_2_1():
    header = bytes.fromhex("8040f17b8041f8d35501a0b2")
    plain = b"Gallia est omnis divisa in partes tres"
    sealed = seal_rtp_gcm(bytes(range(32)), b"Quid pro quo", header + plain, 0)
    assert sealed[12:].hex() == (
        "32b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae0f1ba63799b87b7aa3db36dfffd6b0f9bb7878d7a76c13"
    )


def test_the_reference_seals_the_report_of_rfc_7714_section_17_1():
    report = bytes.fromhex("81c8000d4d6172734e5450314e545032525450200000042a0000e9304c756e61" + "deadbeef" * 5)
    sealed = seal_rtcp_gcm(bytes(range(16)), b"Quid pro quo", report, 0x5D4)
    assert sealed.hex() == (
        "81c8000d4d61727363e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1730d6fda4ce09b4686303ded"
        "0bb9275bc84aa45896cf4d2fc5abf87245d9eade800005d4"
    )


@pytest.mark.parametrize(("sequence", "rollover"), [(1, 0), (65535, 0), (0, 1), (300, 1)])
def test_cm_80_packets_equal_the_reference(sequence: int, rollover: int):
    key, salt = bytes(range(1, 17)), bytes(range(50, 64))
    sender = transport(1, key, salt)
    for step in range(1, rollover << 16 | sequence, 0x7000):
        sender.protect_rtp(HEADER.pack(0x80, 111, step & 0xFFFF, 0, 0xCAFEBABE))
    if rollover and sequence == 300:
        sender.protect_rtp(HEADER.pack(0x80, 111, 65535, 0, 0xCAFEBABE))
    packet = HEADER.pack(0x80, 111, sequence, 0xDECAFBAD, 0xCAFEBABE) + b"\xab" * 37
    assert sender.protect_rtp(packet) == protect_rtp_cm(key, salt, packet, rollover)


def test_cm_80_reports_equal_the_reference():
    key, salt = bytes(range(1, 17)), bytes(range(50, 64))
    sender = transport(1, key, salt)
    report = struct.pack("!BBHI", 0x80, 201, 1, 7) + struct.pack("!BBHI", 0x80, 201, 1, 8)
    for index in (1, 2):
        assert sender.protect_rtcp(report) == protect_rtcp_cm(key, salt, report, index)


@pytest.mark.parametrize("profile", AEAD)
def test_gcm_packets_and_reports_equal_the_reference(profile: SrtpProfile):
    key_length, _ = profile_lengths(profile)
    key, salt = bytes(range(1, key_length + 1)), b"Quid pro quo"
    sender = transport(profile, key, salt)
    for sequence, rollover in ((65534, 0), (65535, 0), (0, 1), (1, 1)):
        packet = HEADER.pack(0x80, 111, sequence, 0xDECAFBAD, 0xCAFEBABE) + b"\xab" * 37
        session_key, session_salt = derive(key, salt, 0, key_length), derive(key, salt, 2, 12)
        assert sender.protect_rtp(packet) == seal_rtp_gcm(session_key, session_salt, packet, rollover)
    report = struct.pack("!BBHI", 0x80, 201, 1, 7) + struct.pack("!BBHI", 0x80, 201, 1, 8)
    session_key, session_salt = derive(key, salt, 3, key_length), derive(key, salt, 5, 12)
    for index in (1, 2):
        assert sender.protect_rtcp(report) == seal_rtcp_gcm(session_key, session_salt, report, index)


def receiver(profile: int, master_key: bytes, master_salt: bytes) -> SrtpTransport:
    return SrtpTransport(profile, bytes(sum(profile_lengths(profile))), master_key + master_salt)


def test_a_report_that_is_authentic_but_not_encrypted_is_refused():
    key, salt = bytes(range(1, 17)), bytes(range(50, 64))
    report = struct.pack("!BBHI", 0x80, 201, 1, 7)
    ours = receiver(1, key, salt)
    with pytest.raises(DecodeError):
        ours.unprotect_rtcp_untrusted(protect_rtcp_cm_unencrypted(key, salt, report, 1))
    assert ours.unprotect_rtcp_untrusted(protect_rtcp_cm(key, salt, report, 1)) == report


@pytest.mark.parametrize("gcm", [False, True])
def test_after_the_last_of_the_31_bits_of_the_srtcp_index_nothing_is_taken(gcm: bool):
    key, salt = bytes(range(1, 17)), b"Quid pro quo" if gcm else bytes(range(50, 64))
    report = struct.pack("!BBHI", 0x80, 201, 1, 7)
    ours = receiver(7 if gcm else 1, key, salt)

    def protected(index: int) -> bytes:
        if gcm:
            return seal_rtcp_gcm(derive(key, salt, 3, 16), derive(key, salt, 5, 12), report, index)
        return protect_rtcp_cm(key, salt, report, index)

    for index in (1, 0x7FFFFFFE, 0x7FFFFFFF):
        assert ours.unprotect_rtcp_untrusted(protected(index)) == report
    for index in (0, 1, 0x7FFFFFFF):
        with pytest.raises(DecodeError) as refused:
            ours.unprotect_rtcp_untrusted(protected(index))
        assert refused.value.reason == "srtp_replay"
