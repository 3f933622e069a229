"""Who may ask: API keys, client secrets, limits, open access; all of it without a network, most of it without a clock."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import DecodeError
from service.config import ConfigError, load
from transceiver.__main__ import main
from transceiver.config import TransceiverConfig
from transceiver.signalling import Access, Permit, SignallingError, Usage, new_key
from transceiver.signalling.api_keys import KeyFile, parse_keys
from transceiver.signalling.client_secrets import MAX_SESSION_BYTES, ClientSecrets, SecretContents

NOW = 1_800_000_000.0
SECRET_KEY = b"k" * 32
CONTENTS = SecretContents(int(NOW) + 600, b"fingerpr", "user-7", b'{"instructions":"nobody may read this"}')


@pytest.fixture
def source() -> random.Random:
    return random.Random(1)


@pytest.fixture
def client_secrets(source: random.Random) -> ClientSecrets:
    return ClientSecrets(SECRET_KEY, source.randbytes)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Clock:
    return Clock()


MakeAccess = Callable[..., tuple[Access, dict[str, str]]]


@pytest.fixture
def make_access(tmp_path: Path, wall: Clock, source: random.Random) -> MakeAccess:
    def make(limits: Mapping[str, Mapping[str, int]] | None) -> tuple[Access, dict[str, str]]:
        """With keys of these names and limits; None: open. The keys themselves beside it."""
        made = {name: new_key(name, source.randbytes, **limit) for name, limit in (limits or {}).items()}
        file = tmp_path / "keys"
        file.write_text("".join(line + "\n" for _, line in made.values()))
        keys = KeyFile(file) if limits is not None else None
        access = Access(keys, secret_key=SECRET_KEY, wall_time=wall, clock=wall, entropy=source.randbytes)
        return access, {name: key for name, (key, _) in made.items()}

    return make


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def refusal(call: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(SignallingError) as refused:
        call()
    return refused.value.status, refused.value.code


# API keys


def test_a_new_key_is_found_by_its_line_and_no_other_text_is(source: random.Random):
    secret, line = new_key("shop", source.randbytes, calls=50, per_minute=None)
    keys = parse_keys(f"# a comment\n\n  {line}   # and one behind\n")
    key = keys.find(secret)
    assert key is not None
    assert (key.name, key.calls, key.per_minute) == ("shop", 50, None)
    assert secret not in line
    for other in ("", secret[:-1], secret + "x", secret.swapcase(), "ü" + secret[1:], "\udcff", key.digest.hex()):
        assert keys.find(other) is None
    assert keys.find_by_fingerprint(key.fingerprint) is key
    assert keys.find_by_fingerprint(b"") is None


HASH = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    "line",
    [
        "shop",
        "shop 0a0a",
        f"shop {HASH}0",
        f"shop {HASH.upper()}",
        f"-shop {HASH}",
        f"shöp {HASH}",
        f"{'s' * 65} {HASH}",
        f"shop {HASH} calls",
        f"shop {HASH} calls=0",
        f"shop {HASH} calls=-1",
        f"shop {HASH} calls=1 calls=2",
        f"shop {HASH} rate=7",
        f"shop {HASH}\nshop sha256:{'0b' * 32}",
        f"shop {HASH}\nother {HASH}",
    ],
)
def test_a_line_that_cannot_be_is_named_by_its_number_and_not_repeated(line: str):
    with pytest.raises(ValueError, match=r"^line [12]: ") as refused:
        parse_keys(line)
    assert "0a0a" not in str(refused.value)


@pytest.mark.parametrize(("name", "limits"), [("two words", {}), ("", {}), ("shop", {"calls": 0}), ("a#b", {})])
def test_a_key_that_the_file_could_not_have_is_not_made(source: random.Random, name: str, limits: dict[str, int]):
    with pytest.raises(ValueError, match=r"a name has|after the hash"):
        new_key(name, source.randbytes, **limits)


def test_the_command_shows_the_key_once_and_its_line_on_standard_output(capsys: pytest.CaptureFixture[str]):
    assert main(["new-key", "shop", "--calls", "3", "--per-minute", "60"]) == 0
    told = capsys.readouterr()
    key = parse_keys(told.out).find(told.err.split()[-1])
    assert key is not None
    assert (key.name, key.calls, key.per_minute) == ("shop", 3, 60)
    with pytest.raises(SystemExit) as refused:
        main(["new-key", "two words"])
    assert refused.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "a name has letters" in told.err


async def test_a_file_that_changes_is_taken_up_and_one_that_is_broken_or_gone_leaves_the_keys_of_before(
    tmp_path: Path, source: random.Random, nursery: trio.Nursery, wait_until
):
    (first, first_line), (second, second_line) = (new_key(name, source.randbytes) for name in ("one", "two"))
    path = tmp_path / "keys"
    path.write_text(first_line)
    file = KeyFile(path)
    nursery.start_soon(file.watch, 0.001)
    path.write_text(f"{first_line}\n{second_line}\n")
    await wait_until(lambda: file.keys.find(second))
    path.write_text("nonsense\n")
    await trio.sleep(0.02)
    assert file.keys.find(first)
    path.unlink()
    await trio.sleep(0.02)
    assert file.keys.find(second)
    path.write_bytes(b"\xff")
    await trio.sleep(0.02)
    fresh = tmp_path / "fresh"
    fresh.write_text(second_line)
    fresh.rename(path)
    await wait_until(lambda: not file.keys.find(first))
    assert file.keys.find(second)
    path.write_text("")
    await wait_until(lambda: not len(file.keys))


# Client secrets


def test_a_secret_opens_as_what_it_was_sealed_as_until_it_expires(client_secrets: ClientSecrets):
    secret = client_secrets.seal(CONTENTS)
    assert client_secrets.open_untrusted(secret, NOW) == CONTENTS
    assert client_secrets.open_untrusted(secret, NOW + 599.9) == CONTENTS
    with pytest.raises(DecodeError, match="secret_expired"):
        client_secrets.open_untrusted(secret, NOW + 600)
    again = client_secrets.seal(CONTENTS)
    assert again != secret
    assert client_secrets.open_untrusted(again, NOW) == CONTENTS


def test_nobody_reads_a_secret_without_the_key_nor_opens_it_with_another(client_secrets: ClientSecrets):
    secret = client_secrets.seal(CONTENTS)
    assert secret.isascii()
    assert secret.startswith("ek_")
    assert all(character.isalnum() or character in "_-" for character in secret), "good in a header and a subprotocol"
    with pytest.raises(DecodeError, match="secret_forged"):
        ClientSecrets(b"x" * 32, random.Random(2).randbytes).open_untrusted(secret, NOW)


def test_a_secret_of_the_largest_session_fits_into_the_headers_of_a_request(client_secrets: ClientSecrets):
    contents = SecretContents(int(NOW) + 7200, b"fingerpr", "u" * 256, b"x" * MAX_SESSION_BYTES)
    secret = client_secrets.seal(contents)
    assert len(secret) < 12_000
    assert client_secrets.open_untrusted(secret, NOW) == contents


def test_every_change_of_a_letter_and_every_cut_is_refused(client_secrets: ClientSecrets):
    secret = client_secrets.seal(SecretContents(int(NOW) + 600, b"", "", None))
    for place in range(len(secret)):
        other = "A" if secret[place] != "A" else "B"
        for bad in (
            secret[:place] + other + secret[place + 1 :],
            secret[:place],
            secret[:place] + "=" + secret[place:],
        ):
            with pytest.raises(DecodeError, match=r"secret_(malformed|forged)"):
                client_secrets.open_untrusted(bad, NOW)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for last in alphabet.replace(secret[-1], ""):  # some of them differ in bits that belong to no byte
        with pytest.raises(DecodeError):
            client_secrets.open_untrusted(secret[:-1] + last, NOW)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(text=st.text(max_size=200), ours=st.booleans())
def test_any_text_is_a_secret_or_a_decode_error(text: str, ours: bool):
    client_secrets = ClientSecrets(SECRET_KEY, random.Random(1).randbytes)
    with pytest.raises(DecodeError) as refused:
        client_secrets.open_untrusted("ek_v1_" + text if ours else text, NOW)
    assert refused.value.reason in ("secret_malformed", "secret_forged")


# Who it is


def test_a_request_with_a_key_is_known_by_the_keys_name_and_limits(make_access: MakeAccess):
    access, keys = make_access({"shop": {"calls": 2}, "trial": {}})
    permit = access.identify({**bearer(keys["shop"]), "openai-safety-identifier": "user-7"})
    assert (permit.key, permit.safety_identifier, permit.by_secret, permit.session) == ("shop", "user-7", False, None)
    assert (permit.calls, permit.per_minute) == (2, None)
    assert access.identify({"authorization": f"bearer   {keys['trial']} "}).key == "trial"
    assert not access.refused


def test_a_web_socket_of_a_page_brings_its_key_as_a_subprotocol(make_access: MakeAccess):
    access, keys = make_access({"shop": {}})
    offered = ["realtime", f"openai-insecure-api-key.{keys['shop']}", "openai-agents-sdk.0.20"]
    assert access.identify({}, offered).key == "shop"
    assert refusal(lambda: access.identify({}, offered[:1])) == (401, "missing_api_key")
    assert refusal(lambda: access.identify(bearer("sk-other"), offered)) == (401, "invalid_api_key")


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic c2hvcDp4", "sk-antiphon-x", "Bearer\tsk"])
def test_without_a_key_nobody_passes(make_access: MakeAccess, header: str):
    access, _ = make_access({"shop": {}})
    assert refusal(lambda: access.identify({"authorization": header})) == (401, "missing_api_key")
    assert access.refused == {"missing_api_key": 1}


@pytest.mark.parametrize("key", ["sk-antiphon-x", "ek_local", "sk-antiphon-" + "A" * 43, "x" * 12_000])
def test_with_a_key_that_is_none_of_ours_nobody_passes(make_access: MakeAccess, key: str):
    access, _ = make_access({"shop": {}})
    assert refusal(lambda: access.identify(bearer(key))) == (401, "invalid_api_key")


def test_a_client_secret_makes_its_holder_known_as_the_key_and_carries_the_session(
    make_access: MakeAccess, wall: Clock
):
    access, keys = make_access({"shop": {"per_minute": 7}})
    maker = access.identify({**bearer(keys["shop"]), "openai-safety-identifier": "user-7"})
    value, expires_at = access.issue(maker, b'{"model":"m"}', 600)
    assert expires_at == NOW + 600
    permit = access.identify({**bearer(value), "openai-safety-identifier": "says the browser"})
    assert (permit.key, permit.safety_identifier, permit.session) == ("shop", "user-7", b'{"model":"m"}')
    assert (permit.by_secret, permit.per_minute) == (True, 7)
    assert access.identify({}, [f"openai-insecure-api-key.{value}"]) == permit
    assert refusal(lambda: access.issue(permit, None, 600)) == (403, "api_key_required")
    wall.now += 600
    assert refusal(lambda: access.identify(bearer(value))) == (401, "expired_client_secret")
    assert refusal(lambda: access.identify(bearer(value[:-3]))) == (401, "invalid_client_secret")


def test_a_client_secret_ends_with_its_key_even_if_another_gets_the_name(
    make_access: MakeAccess, source: random.Random
):
    access, keys = make_access({"shop": {}})
    value, _ = access.issue(access.identify(bearer(keys["shop"])), None, 600)
    assert access.identify(bearer(value)).key == "shop"
    assert access.keys is not None
    _, line = new_key("shop", source.randbytes)
    access.keys.keys = parse_keys(line)
    assert refusal(lambda: access.identify(bearer(value))) == (401, "invalid_client_secret")


def test_a_session_that_no_header_could_carry_is_refused_with_the_bound(make_access: MakeAccess):
    access, _ = make_access(None)
    session = json.dumps({"instructions": "x" * MAX_SESSION_BYTES}).encode()
    assert refusal(lambda: access.issue(Permit(), session, 600)) == (400, "session_too_large")


def test_with_open_access_anything_passes_but_a_client_secret_that_is_no_good(make_access: MakeAccess, wall: Clock):
    access, _ = make_access(None)
    for header in ({}, bearer("sk-whatever"), bearer("ek_local"), {"authorization": "Basic x"}):
        assert access.identify(header) == Permit()
    value, _ = access.issue(Permit(), b"{}", 10)
    assert access.identify(bearer(value)).session == b"{}"
    assert refusal(lambda: access.identify(bearer(value + "x"))) == (401, "invalid_client_secret")
    wall.now += 10
    assert refusal(lambda: access.identify(bearer(value))) == (401, "expired_client_secret")


def test_a_secret_made_with_open_access_is_worth_nothing_once_keys_are_asked_for(make_access: MakeAccess):
    value, _ = make_access(None)[0].issue(Permit(), None, 600)
    keyed, _ = make_access({"shop": {}})
    assert refusal(lambda: keyed.identify(bearer(value))) == (401, "invalid_client_secret")


@pytest.mark.parametrize("identifier", ["x" * 257, "grün", "a\tb"])
def test_a_safety_identifier_that_cannot_be_is_refused(make_access: MakeAccess, identifier: str):
    access, _ = make_access(None)
    asked = {"openai-safety-identifier": identifier}
    assert refusal(lambda: access.identify(asked)) == (400, "invalid_safety_identifier")


# Limits


def test_a_key_has_so_many_calls_at_once_and_another_is_not_concerned(wall: Clock):
    usage = Usage(wall)
    shop, trial = Permit("shop", calls=2), Permit("trial")
    for _ in range(2):
        usage.check(shop)
        usage.began(shop)
    with pytest.raises(SignallingError) as refused:
        usage.check(shop)
    assert (refused.value.status, refused.value.code, refused.value.retry_after) == (
        429,
        "concurrent_calls_exceeded",
        5,
    )
    for _ in range(100):
        usage.check(trial)
        usage.began(trial)
    usage.ended("shop")
    usage.check(shop)
    usage.ended("shop")
    assert usage.calls == {"trial": 100}


def test_a_key_places_so_many_calls_in_any_minute(wall: Clock):
    usage = Usage(wall)
    shop = Permit("shop", per_minute=3)
    for _ in range(3):
        usage.check(shop)
        usage.began(shop)
        usage.ended("shop")
        wall.now += 10
    with pytest.raises(SignallingError) as refused:
        usage.check(shop)
    assert (refused.value.status, refused.value.code, refused.value.retry_after) == (429, "rate_limit_exceeded", 30)
    wall.now += 29.5
    with pytest.raises(SignallingError) as refused:
        usage.check(shop)
    assert refused.value.retry_after == 1
    wall.now += 0.5
    usage.check(shop)
    usage.began(shop)
    with pytest.raises(SignallingError):
        usage.check(shop)


def test_a_limit_that_the_file_changes_holds_from_then_on(wall: Clock):
    usage = Usage(wall)
    for _ in range(3):
        usage.began(Permit("shop", per_minute=3))
    usage.check(Permit("shop", per_minute=4))
    usage.began(Permit("shop", per_minute=4))
    for limit, passes in ((5, True), (4, False), (2, False), (None, True)):
        permit = Permit("shop", per_minute=limit)
        if passes:
            usage.check(permit)
        else:
            assert refusal(partial(usage.check, permit)) == (429, "rate_limit_exceeded")


# Configuration


def configure(tmp_path: Path, **values: object) -> TransceiverConfig:
    lines = [f"{key} = {json.dumps(value)}" for key, value in {"direct": True, **values}.items()]
    file = tmp_path / "antiphon.toml"
    file.write_text("[transceiver]\n" + "\n".join(lines))
    return load({"transceiver": TransceiverConfig}, file, {})[TransceiverConfig]


@pytest.mark.parametrize("http", ["127.0.0.1:0", "127.8.9.1:80", "[::1]:0"])
def test_on_loopback_access_is_open_without_a_word(tmp_path: Path, http: str):
    assert Access.configured(configure(tmp_path, http=[http])).keys is None


@pytest.mark.parametrize("http", ["0.0.0.0:80", "[::]:80", "10.0.0.1:80", "[2001:db8::1]:80"])
def test_elsewhere_somebody_must_have_said_who_may_call(tmp_path: Path, http: str):
    with pytest.raises(ConfigError) as refused:
        configure(tmp_path, http=["127.0.0.1:80", http])
    assert refused.value.key == "transceiver.http"
    for word in (http, "api_keys", "new-key", "open_access"):
        assert word in str(refused.value)
    assert Access.configured(configure(tmp_path, http=[http], open_access=True)).keys is None
    (tmp_path / "keys").write_text("")
    assert Access.configured(configure(tmp_path, http=[http], api_keys=str(tmp_path / "keys"))).keys is not None


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"api_keys": "keys", "open_access": True}, "transceiver.open_access"),
        ({"api_keys": "/nowhere/keys"}, "transceiver.api_keys"),
        ({"api_keys": "/"}, "transceiver.api_keys"),
        ({"secret_key": "xyz"}, "transceiver.secret_key"),
        ({"secret_key": "abcd"}, "transceiver.secret_key"),
    ],
)
def test_what_cannot_be_configured_names_its_key(tmp_path: Path, values: dict[str, object], key: str):
    with pytest.raises(ConfigError) as refused:
        Access.configured(configure(tmp_path, **values))
    assert refused.value.key == key
    assert "xyz" not in str(refused.value)


def test_a_file_with_a_broken_line_is_refused_at_the_start(tmp_path: Path):
    (tmp_path / "keys").write_text("nonsense\n")
    with pytest.raises(ConfigError, match=r"transceiver\.api_keys: .*line 1: "):
        Access.configured(configure(tmp_path, api_keys=str(tmp_path / "keys")))


def test_processes_that_share_a_secret_key_open_each_others_secrets_and_others_do_not(tmp_path: Path):
    one, other = (Access.configured(configure(tmp_path, secret_key="ab" * 32)) for _ in range(2))
    value, _ = one.issue(Permit(), b"{}", 600)
    assert other.identify(bearer(value)).session == b"{}"
    for _ in range(2):
        assert refusal(lambda: Access.configured(configure(tmp_path)).identify(bearer(value)))[0] == 401
