"""The route token: what opens, what does not, and where it may point."""

from __future__ import annotations

import base64
import random
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.address import pack_address
from protocol.errors import DecodeError
from protocol.routing import KeyRing, RoutingConfig

OLD = "2:" + bytes(range(32)).hex()
NEW = "3:" + bytes(range(32, 64)).hex()
WALL = 1_795_000_000.0
HOME = pack_address("10.1.2.3", 40000)

VECTOR_UFRAG = "QQAHzxpwrQ7aqQMiX+XuzA8tRCiy97FipzIsaMXKjsfnvKsR"
VECTOR_PASSWORD = "NTPCQkCEGsLfZ9AYnmnFnxhelvhlTbVf"


def ring(*keys: str, cluster: int = 7, prefix: str = "10.0.0.0/8") -> KeyRing:
    return KeyRing.parse(RoutingConfig(cluster=cluster, keys=keys or (OLD,), prefix=prefix))


def seal(keys: KeyRing, address: bytes = HOME, seed: int = 1) -> bytes:
    entropy = random.Random(seed).randbytes
    return keys.seal(address, incarnation=5, wall_time=WALL, entropy=entropy).encode()  # type: ignore[arg-type]


def reason(keys: KeyRing, ufrag: bytes) -> str:
    with pytest.raises(DecodeError) as caught:
        keys.open_untrusted(ufrag)
    return caught.value.reason


def test_a_sealed_token_opens_to_what_went_in():
    token = ring().open_untrusted(seal(ring()))
    assert (token.address, token.incarnation, token.key_id) == (HOME, 5, 2)
    assert 0 <= WALL - token.issued < 60
    assert len(token.random) == 6


def test_the_wire_format_is_pinned_by_a_vector():
    ufrag = ring().seal(HOME, incarnation=5, wall_time=WALL, entropy=lambda n: bytes(range(n)))
    assert ufrag == VECTOR_UFRAG
    assert ring().derive_password(ufrag) == VECTOR_PASSWORD


def test_a_ufrag_is_48_ice_chars_and_the_password_32():
    alphabet = set(string.ascii_letters + string.digits + "+/")
    for seed in range(50):
        ufrag = seal(ring(), seed=seed)
        password = ring().derive_password(ufrag)
        assert len(ufrag) == 48
        assert len(password) == 32
        assert set(ufrag.decode() + password) <= alphabet


def test_every_edit_of_one_character_is_refused():
    keys, ufrag = ring(), seal(ring())
    for position in range(48):
        for char in b"AZ9/":
            if ufrag[position] != char:
                reason(keys, ufrag[:position] + bytes([char]) + ufrag[position + 1 :])


def test_every_bit_flip_is_refused():
    keys, raw = ring(), base64.b64decode(seal(ring()))
    for bit in range(36 * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        assert reason(keys, base64.b64encode(flipped)) in {"token_forged", "token_unknown_key"}


@pytest.mark.parametrize("cut", [0, 1, 4, 44, 47])
def test_a_truncated_token_is_malformed(cut: int):
    assert reason(ring(), seal(ring())[:cut]) == "token_malformed"


def test_padding_newlines_and_foreign_characters_are_malformed():
    ufrag = seal(ring())
    for bad in (
        ufrag[:-1] + b"=",
        ufrag[:-2] + b"==",
        ufrag[:-1] + b"\n",
        ufrag[:-1] + b"-",
        ufrag + b"A",
        b"\xff" * 48,
    ):
        assert reason(ring(), bad) == "token_malformed"


def test_a_token_of_another_cluster_or_key_is_unknown():
    assert reason(ring(cluster=8), seal(ring(cluster=7))) == "token_unknown_key"
    assert reason(ring(OLD), seal(ring(NEW))) == "token_unknown_key"


def test_a_token_sealed_with_another_secret_of_the_same_id_is_forged():
    assert reason(ring("2:" + "ab" * 32), seal(ring(OLD))) == "token_forged"


def test_rotation_loses_no_call():
    before, both, promoted, after = ring(OLD), ring(OLD, NEW), ring(NEW, OLD), ring(NEW)
    old, new = seal(before), seal(promoted)
    assert both.open_untrusted(old).address == promoted.open_untrusted(old).address == HOME
    assert both.open_untrusted(new).address == after.open_untrusted(new).address == HOME
    assert before.derive_password(old) == promoted.derive_password(old)
    assert reason(after, old) == "token_unknown_key"


def test_the_password_depends_on_every_part_of_the_token():
    passwords = {ring().derive_password(seal(ring(), seed=seed)) for seed in range(100)}
    assert len(passwords) == 100


def test_staleness_allows_for_clocks_that_differ():
    token = ring().open_untrusted(seal(ring()))
    assert not token.is_stale(WALL, 3600, 300)
    assert not token.is_stale(WALL - 299, 3600, 300)
    assert not token.is_stale(WALL + 3800, 3600, 300)
    assert token.is_stale(WALL - 400, 3600, 300)
    assert token.is_stale(WALL + 4000, 3600, 300)


@pytest.mark.parametrize(
    ("prefix", "host"),
    [
        ("127.0.0.0/8", "127.0.0.1"),
        ("10.2.0.0/16", "10.2.255.254"),
        ("192.168.7.9/32", "192.168.7.9"),
        ("::1/128", "::1"),
        ("fd00:1::/64", "fd00:1::a:b"),
        ("2001:db8:5::/96", "2001:db8:5::7"),
    ],
)
def test_ipv4_and_ipv6_transceivers_both_fit(prefix: str, host: str):
    keys = ring(prefix=prefix)
    assert keys.open_untrusted(seal(keys, pack_address(host, 65535))).address == pack_address(host, 65535)


@pytest.mark.parametrize("host", ["11.0.0.1", "10.0.0.0", "10.255.255.255", "::1", "127.0.0.1"])
def test_nothing_outside_the_prefix_can_be_sealed(host: str):
    with pytest.raises(ValueError, match=r"prefix|inside|number"):
        seal(ring(), pack_address(host, 40000))


def test_port_zero_can_not_be_sealed():
    with pytest.raises(ValueError, match="inside"):
        seal(ring(), pack_address("10.1.2.3", 0))


def test_a_token_from_a_wider_prefix_can_not_name_an_address_outside_ours():
    wide, narrow = ring(prefix="10.0.0.0/8"), ring(prefix="10.1.2.0/24")
    assert reason(narrow, seal(wide, pack_address("10.200.0.1", 40000))) == "token_address"
    inside = narrow.open_untrusted(seal(wide, pack_address("10.0.0.77", 40000)))
    assert narrow.prefix.contains(inside.address)


SPECIAL = [
    "0.0.0.0/0",
    "0.0.0.0/8",
    "0.0.0.0/32",
    "126.0.0.0/7",
    "169.254.0.0/16",
    "169.254.169.254/32",
    "224.0.0.0/8",
    "255.255.255.255/32",
    "::/0",
    "::/128",
    "::/64",
    "::ffff:127.0.0.0/104",
    "::ffff:0:0/96",
    "::7f00:1/128",
    "64:ff9b::/96",
    "64:ff9b::a00:0/104",
    "fc00::/6",
    "fe80::/64",
    "ff02::/16",
    "2002::/16",
]


@pytest.mark.parametrize("prefix", SPECIAL)
def test_a_prefix_in_or_around_a_special_range_is_refused(prefix: str):
    with pytest.raises(ValueError, match=r"routing\.prefix: .* overlaps the special range"):
        ring(prefix=prefix)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (RoutingConfig(), r"^routing\.keys: at least one"),
        (RoutingConfig(keys=(OLD,), cluster=65536), r"^routing\.cluster"),
        (RoutingConfig(keys=(OLD,), prefix="10.1.2.3/8"), r"^routing\.prefix: .*host bits"),
        (RoutingConfig(keys=(OLD,), prefix="office"), r"^routing\.prefix"),
        (RoutingConfig(keys=("7:" + "00" * 32,)), r"^routing\.keys: each key"),
        (RoutingConfig(keys=("00" * 32,)), r"^routing\.keys: each key"),
        (RoutingConfig(keys=("1:xyz",)), r"^routing\.keys: the secret must be hex"),
        (RoutingConfig(keys=("1:" + "00" * 31,)), r"^routing\.keys: the secret must have at least 32"),
        (RoutingConfig(keys=(OLD, OLD)), r"^routing\.keys: two keys"),
    ],
)
def test_a_bad_configuration_is_named_in_one_line(config: RoutingConfig, complaint: str):
    with pytest.raises(ValueError, match=complaint) as caught:
        KeyRing.parse(config)
    assert "\n" not in str(caught.value)
    assert bytes(range(32)).hex() not in str(caught.value)


def test_secrets_are_not_in_the_repr_of_the_configuration():
    assert bytes(range(32)).hex() not in repr(RoutingConfig(keys=(OLD,), trunk_keys=(bytes(range(32)).hex(),)))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.one_of(st.binary(max_size=60), st.binary(min_size=36, max_size=36).map(base64.b64encode)))
def test_no_bytes_open_or_do_anything_but_raise_a_decode_error(data: bytes):
    reason(ring(), data)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(1, (1 << 24) - 2), st.integers(1, 65535), st.binary(min_size=6, max_size=6))
def test_every_host_and_port_of_the_prefix_survives_the_round_trip(number: int, port: int, noise: bytes):
    keys = ring()
    address = keys.prefix.address(number, port)
    ufrag = keys.seal(address, incarnation=number, wall_time=WALL, entropy=lambda n: noise)
    assert keys.open_untrusted(ufrag.encode()).address == address
    assert keys.prefix.host_number(address) == number
