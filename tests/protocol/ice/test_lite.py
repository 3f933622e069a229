"""The ICE-lite agent against single datagrams: who is answered, what is selected, when a path moves."""

from __future__ import annotations

import itertools
import json
import pathlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.address import Path, pack_address
from protocol.errors import LocalError
from protocol.ice import (
    ConsentLate,
    ConsentRestored,
    IceCredentials,
    IceLite,
    IceLiteConfig,
    IceOutput,
    PathSelected,
    SendTo,
)
from protocol.stun import (
    Class,
    Message,
    Method,
    authenticate,
    binding_error,
    binding_success,
    message_fingerprint,
    message_integrity,
    parse_message_untrusted,
    scan_binding_untrusted,
)

VECTORS = pathlib.Path(__file__).parents[2] / "vectors"
SERVER = IceCredentials("routetoken0123456789", "the-password-of-the-server".replace("-", "+"))
CLIENT = IceCredentials("OoHV", "348zhdFJTCsUvFJH5YqDQ1yn")
A = Path(b"", pack_address("192.0.2.1", 40001))
B = Path(b"", pack_address("192.0.2.1", 40002))
ATTACKER = Path(b"", pack_address("198.51.100.66", 666))


class Scene:
    """One agent, and a client that is written out by hand."""

    def __init__(self, config: IceLiteConfig | None = None, seed: int = 1) -> None:
        self.random = random.Random(seed)
        self.agent = IceLite(SERVER, CLIENT, entropy=self.random.randbytes, config=config)
        self.now = 100.0

    def check(self, *, use_candidate: bool = False, key: str = SERVER.pwd, **changes: object) -> bytes:
        attributes: dict[str, object] = {"USERNAME": f"{SERVER.ufrag}:{CLIENT.ufrag}", "ICE-CONTROLLING": 5}
        if use_candidate:
            attributes["USE-CANDIDATE"] = None
        attributes["PRIORITY"] = 1853824767
        attributes |= {name.replace("_", "-"): value for name, value in changes.items()}
        attributes = {name: value for name, value in attributes.items() if value is not ...}
        message = Message(Method.BINDING, Class.REQUEST, entropy=self.random.randbytes, attributes=attributes)
        message.add_message_integrity(key.encode())
        return bytes(message)

    def receive(self, data: bytes, path: Path) -> list[IceOutput]:
        self.agent.receive_untrusted(data, path, self.now)
        return self.agent.poll()

    def at(self, now: float) -> list[IceOutput]:
        """Let time run up to `now`, waking the agent exactly when it asks for it."""
        outputs: list[IceOutput] = []
        for _ in range(1000):
            due = self.agent.next_timeout()
            if due > now:
                self.now = now
                return outputs
            self.now = max(self.now, due)
            self.agent.handle_timeout(self.now)
            outputs += self.agent.poll()
        raise AssertionError("the agent spins")

    def answer(self, output: IceOutput, path: Path | None = None, key: str = CLIENT.pwd) -> list[IceOutput]:
        """The client answers a check of the agent's."""
        assert isinstance(output, SendTo)
        answer = binding_success(output.data[8:20], output.path.remote, key.encode())
        return self.receive(answer, path or output.path)

    def settle(self) -> None:
        """A is nominated, and our first check is answered."""
        outputs = self.receive(self.check(use_candidate=True), A)
        self.answer(checks(outputs)[0])
        assert self.agent.selected == A
        assert self.agent.nominated


def checks(outputs: list[IceOutput]) -> list[SendTo]:
    return [o for o in outputs if isinstance(o, SendTo) and o.data[:2] == b"\0\1"]


def answers(outputs: list[IceOutput]) -> list[Message]:
    sends = [o for o in outputs if isinstance(o, SendTo) and o.data[:2] != b"\0\1"]
    return [parse_message_untrusted(o.data) for o in sends]


def selections(outputs: list[IceOutput]) -> list[PathSelected]:
    return [o for o in outputs if isinstance(o, PathSelected)]


def test_stun1_an_authenticated_check_is_answered_along_its_path_with_the_clients_address() -> None:
    scene = Scene()
    outputs = scene.receive(scene.check(), A)
    (answer,) = answers(outputs)
    assert answer.message_class is Class.RESPONSE
    assert answer.attributes["XOR-MAPPED-ADDRESS"] == ("192.0.2.1", 40001)
    assert answer.check_message_integrity(SERVER.pwd.encode())
    assert all(o.path == A for o in outputs if isinstance(o, SendTo))
    assert scene.agent.is_valid(A)
    assert not scene.agent.is_valid(B)


def test_ice4_no_remote_candidate_is_needed_and_the_first_valid_path_is_provisional_until_nominated() -> None:
    scene = Scene()
    assert scene.agent.selected is None
    assert selections(scene.receive(scene.check(), A)) == [PathSelected(A, nominated=False)]
    assert selections(scene.receive(scene.check(use_candidate=True), B)) == [PathSelected(B, nominated=True)]
    assert scene.agent.selected == B


def test_ice6_a_first_check_that_nominates_selects_once() -> None:
    scene = Scene()
    assert selections(scene.receive(scene.check(use_candidate=True), A)) == [PathSelected(A, nominated=True)]
    assert selections(scene.receive(scene.check(use_candidate=True), A)) == []


@pytest.mark.parametrize(
    ("reason", "spoil"),
    [
        ("stun_integrity", {"key": "wrong-password-0123456789"}),
        ("stun_integrity", {"key": CLIENT.pwd}),
    ],
)
def test_stun4_a_check_under_the_wrong_password_gets_no_byte(reason: str, spoil: dict[str, str]) -> None:
    scene = Scene()
    assert scene.receive(scene.check(use_candidate=True, key=spoil["key"]), A) == []
    assert scene.agent.drops[reason] == 1
    assert scene.agent.selected is None
    assert not scene.agent.is_valid(A)


def test_stun4_a_check_without_integrity_gets_no_byte() -> None:
    scene = Scene()
    message = Message(
        Method.BINDING, Class.REQUEST, bytes(12), {"USERNAME": f"{SERVER.ufrag}:{CLIENT.ufrag}", "USE-CANDIDATE": None}
    )
    message.add_fingerprint()
    assert scene.receive(bytes(message), A) == []
    assert scene.agent.drops == {"stun_integrity_missing": 1}


@pytest.mark.parametrize("username", [f"{SERVER.ufrag}:other", f"{SERVER.ufrag}:", f"x{SERVER.ufrag}:{CLIENT.ufrag}"])
def test_stun4_an_authentic_check_for_another_user_gets_401_without_integrity(username: str) -> None:
    scene = Scene()
    (answer,) = answers(scene.receive(scene.check(use_candidate=True, USERNAME=username), A))
    assert answer.attributes["ERROR-CODE"][0] == 401
    assert "MESSAGE-INTEGRITY" not in answer.attributes
    assert scene.agent.selected is None


def test_stun4_an_authentic_check_without_username_gets_400() -> None:
    scene = Scene()
    (answer,) = answers(scene.receive(scene.check(USERNAME=...), A))
    assert answer.attributes["ERROR-CODE"][0] == 400


def test_stun5_an_unknown_required_attribute_gets_420_and_an_unknown_optional_one_is_ignored() -> None:
    scene = Scene()
    (answer,) = answers(scene.receive(scene.check(**{"0x7FF3": b"abcd"}), A))
    assert answer.attributes["ERROR-CODE"][0] == 420
    assert answer.attributes["UNKNOWN-ATTRIBUTES"] == (0x7FF3,)
    assert answer.check_message_integrity(SERVER.pwd.encode())
    (answer,) = answers(scene.receive(scene.check(**{"0xC057": bytes(4), "0xC070": bytes(900)}), A))
    assert answer.message_class is Class.RESPONSE


def test_ice3_a_peer_that_claims_to_be_controlled_too_gets_487() -> None:
    scene = Scene()
    (answer,) = answers(scene.receive(scene.check(ICE_CONTROLLING=..., ICE_CONTROLLED=1), A))
    assert answer.attributes["ERROR-CODE"][0] == 487
    assert scene.agent.selected is None


def test_stun2_a_sha256_check_is_answered_in_kind() -> None:
    scene = Scene()
    message = Message(
        Method.BINDING,
        Class.REQUEST,
        entropy=scene.random.randbytes,
        attributes={"USERNAME": f"{SERVER.ufrag}:{CLIENT.ufrag}", "PRIORITY": 1},
    )
    message.add_message_integrity_sha256(SERVER.pwd.encode())
    (answer,) = answers(scene.receive(bytes(message), A))
    assert "MESSAGE-INTEGRITY-SHA256" in answer.attributes
    assert answer.check_message_integrity(SERVER.pwd.encode())


def test_stun9_a_repeated_check_gets_the_same_answer_and_changes_nothing() -> None:
    scene = Scene()
    check = scene.check(use_candidate=True)
    first = scene.receive(check, A)
    scene.now += 0.5
    again = scene.receive(check, A)
    assert next(o for o in first if isinstance(o, SendTo)) == again[0]
    assert len(again) == 1


def test_stun10_no_answer_is_longer_than_its_request() -> None:
    short = IceCredentials("abcd", "p" * 22)
    agent = IceLite(short, IceCredentials("efgh", "q" * 22), entropy=random.Random(1).randbytes)
    ipv6 = Path(b"", pack_address("2001:db8::1", 1))
    for attributes in (
        {"USERNAME": "abcd:efgh"},
        {"USERNAME": "abcd:efgh", "0x7FF3": b""},
        {"USERNAME": "abcd:xxxx"},
        {"ICE-CONTROLLED": 1},
        {"PRIORITY": 1},
        {},
    ):
        message = Message(Method.BINDING, Class.REQUEST, entropy=random.Random(2).randbytes, attributes=attributes)
        message.add_message_integrity(b"p" * 22)
        agent.receive_untrusted(bytes(message), ipv6, 1.0)
        sends = [o for o in agent.poll() if isinstance(o, SendTo) and o.data[:2] != b"\0\1"]
        assert sum(len(o.data) for o in sends) <= len(bytes(message))


def test_ice12_our_only_unasked_check_goes_to_the_first_path_and_is_a_controlled_agents_check() -> None:
    scene = Scene()
    (check,) = checks(scene.receive(scene.check(), A))
    binding = scan_binding_untrusted(check.data)
    assert binding.username == f"{CLIENT.ufrag}:{SERVER.ufrag}".encode()
    assert binding.controlling is False
    assert not binding.use_candidate
    assert authenticate(check.data, binding, CLIENT.pwd.encode())
    assert checks(scene.receive(scene.check(), B)) == []


def test_the_round_trip_time_is_that_of_our_own_check() -> None:
    scene = Scene()
    (check,) = checks(scene.receive(scene.check(), A))
    assert scene.agent.rtt is None
    scene.now += 0.042
    scene.answer(check)
    assert scene.agent.rtt == pytest.approx(0.042)


def test_row18_a_nomination_from_a_new_port_moves_the_path_only_when_our_own_check_was_answered() -> None:
    scene = Scene()
    scene.settle()
    scene.now += 1
    outputs = scene.receive(scene.check(use_candidate=True), B)
    assert len(answers(outputs)) == 1
    assert selections(outputs) == []
    assert scene.agent.selected == A
    (check,) = checks(outputs)
    assert check.path == B
    assert selections(scene.answer(check)) == [PathSelected(B)]
    assert scene.agent.selected == B


def test_row18_a_check_without_use_candidate_moves_nothing_while_the_old_path_lives() -> None:
    scene = Scene()
    scene.settle()
    scene.now += 0.5
    outputs = scene.receive(scene.check(), B)
    assert checks(outputs) == []
    assert scene.at(scene.now + 3) == []
    assert scene.agent.selected == A


def test_row18_without_use_candidate_the_path_moves_after_silence_and_proof() -> None:
    scene = Scene()
    scene.settle()
    scene.at(scene.now + 2.5)
    to_new, to_old = checks(scene.receive(scene.check(), B))
    assert (to_new.path, to_old.path) == (B, A)
    scene.now += 0.02
    assert selections(scene.answer(to_new)) == []
    assert selections(scene.at(scene.now + 1)) == [PathSelected(B)]


def test_row18_a_silent_path_that_still_answers_keeps_its_place() -> None:
    scene = Scene()
    scene.settle()
    scene.at(scene.now + 2.5)
    to_new, to_old = checks(scene.receive(scene.check(), B))
    scene.now += 0.02
    scene.answer(to_new)
    scene.now += 0.1
    scene.answer(to_old)
    assert selections(scene.at(scene.now + 3)) == []
    assert scene.agent.selected == A


def test_row18_authenticated_media_from_a_new_port_that_has_checked_moves_the_path_after_proof() -> None:
    scene = Scene()
    scene.settle()
    for _ in range(50):
        scene.now += 0.02
        scene.agent.media_authenticated(A, scene.now)
    scene.receive(scene.check(), B)
    assert scene.agent.poll() == []
    proofs: list[SendTo] = []
    for _ in range(10):
        scene.now += 0.02
        scene.agent.media_authenticated(B, scene.now)
        proofs += checks(scene.agent.poll())
    (proof,) = proofs
    assert proof.path == B
    assert scene.agent.selected == A
    assert selections(scene.answer(proof)) == [PathSelected(B)]
    scene.now += 0.01
    scene.agent.media_authenticated(A, scene.now)  # a straggler
    assert scene.agent.poll() == []


def test_row3_ice12_media_alone_moves_nothing_and_draws_no_check() -> None:
    scene = Scene()
    scene.settle()
    scene.now += 2
    scene.agent.media_authenticated(ATTACKER, scene.now)
    outputs = scene.agent.poll() + scene.at(scene.now + 8)
    assert [o for o in checks(outputs) if o.path == ATTACKER] == []
    assert selections(outputs) == []
    assert scene.agent.selected == A
    assert not scene.agent.is_valid(ATTACKER)


def test_row14_a_check_copied_to_another_address_is_not_answered_and_moves_nothing() -> None:
    scene = Scene()
    scene.settle()
    check = scene.check(use_candidate=True)
    scene.receive(check, A)
    scene.now += 20
    assert scene.receive(check, ATTACKER) == []
    assert scene.agent.drops["ice_check_copied"] == 1
    assert not scene.agent.is_valid(ATTACKER)
    assert scene.agent.selected == A


def test_row14_a_copy_that_overtakes_the_original_cannot_prove_itself() -> None:
    scene = Scene()
    scene.settle()
    check = scene.check(use_candidate=True)
    stolen = scene.receive(check, ATTACKER)
    assert selections(stolen) == []
    outputs = scene.receive(check, A)
    assert len(answers(outputs)) == 1
    (question,) = checks(stolen)
    assert scene.answer(question, path=A) == []  # from elsewhere than it was asked
    assert scene.agent.drops["ice_answer_path"] == 1
    assert scene.answer(question, key=SERVER.pwd) == []  # not under the client's password
    outputs = scene.at(scene.now + 8)
    assert {o.path for o in checks(outputs)} <= {ATTACKER, A}
    assert selections(outputs) == []
    assert scene.agent.selected == A


def test_row14_a_copy_that_overtakes_the_very_first_check_loses_to_the_client_who_can_prove_himself() -> None:
    scene = Scene()
    check = scene.check(use_candidate=True)
    (to_attacker,) = checks(scene.receive(check, ATTACKER))
    assert scene.agent.selected == ATTACKER
    outputs = scene.receive(check, A)
    assert answers(outputs) == []
    (to_client,) = checks(outputs)
    assert not scene.agent.is_valid(A)
    assert selections(scene.answer(to_client)) == [PathSelected(A)]
    assert len(answers(scene.receive(check, A))) == 1
    assert to_attacker.path == ATTACKER
    assert scene.receive(check, B) == []


def test_row14_a_path_that_is_proven_does_not_yield_to_a_nomination_without_proof_though_it_is_provisional() -> None:
    scene = Scene()
    (question,) = checks(scene.receive(scene.check(), A))
    scene.answer(question)
    outputs = scene.receive(scene.check(use_candidate=True), B)
    assert selections(outputs) == []
    (proof,) = checks(outputs)
    assert scene.agent.selected == A
    assert selections(scene.answer(proof)) == [PathSelected(B, nominated=True)]
    assert scene.agent.nominated


def test_row14_integrity_that_is_not_the_clients_moves_nothing_even_with_a_known_id() -> None:
    scene = Scene()
    scene.settle()
    good = scene.check(use_candidate=True)
    for position in range(len(good) - 8):
        bad = bytearray(good)
        bad[position] ^= 0x20
        message = bytes(bad[:-8])
        crc = fingerprint(message)
        assert scene.receive(message + crc, ATTACKER) == []
    assert not scene.agent.is_valid(ATTACKER)
    assert scene.agent.selected == A


def fingerprint(message: bytes) -> bytes:
    return b"\x80\x28\x00\x04" + message_fingerprint(message).to_bytes(4, "big")


def test_ice6_a_renomination_of_no_higher_value_moves_nothing() -> None:
    scene = Scene()
    scene.receive(scene.check(**{"0xC001": (5).to_bytes(4, "big")}), A)
    assert checks(scene.receive(scene.check(**{"0xC001": (5).to_bytes(4, "big")}), B)) == []
    (check,) = checks(scene.receive(scene.check(**{"0xC001": (6).to_bytes(4, "big")}), B))
    scene.answer(check)
    assert scene.agent.selected == B
    assert checks(scene.receive(scene.check(**{"0xC001": (6).to_bytes(4, "big")}), A)) == []


def test_con1_con3_requests_keep_consent_and_then_nothing_is_asked() -> None:
    scene = Scene()
    scene.settle()
    outputs: list[IceOutput] = []
    for _ in range(20):
        outputs += scene.at(scene.now + 2.65)
        outputs += scene.receive(scene.check(), A)
    assert checks(outputs) == []
    assert not any(isinstance(o, ConsentLate) for o in outputs)


def test_con1_without_requests_we_ask_every_4_to_6_seconds_with_new_ids_and_answers_keep_consent() -> None:
    scene = Scene()
    scene.settle()
    start, asked = scene.now, []
    while scene.now < start + 100:
        for check in checks(scene.at(scene.now + 0.1)):
            asked.append((scene.now, check.data[8:20]))
            assert scene.answer(check) == []
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(asked)]
    assert min(gaps) >= 3.9
    assert max(gaps) <= 6.2
    assert len(set(gaps)) > 3
    assert len({transaction_id for _, transaction_id in asked}) == len(asked)


def test_con1_consent_is_late_after_ten_silent_seconds_and_media_does_not_keep_it() -> None:
    scene = Scene()
    scene.settle()
    settled = scene.now
    late = None
    while late is None and scene.now < settled + 60:
        scene.agent.media_authenticated(A, scene.now)
        if any(isinstance(o, ConsentLate) for o in scene.at(scene.now + 0.02)):
            late = scene.now
    assert late is not None
    assert late - settled == pytest.approx(10, abs=0.1)


def test_con1_consent_is_restored_by_a_request_or_by_an_answer() -> None:
    scene = Scene()
    scene.settle()
    assert ConsentLate() in scene.at(scene.now + 11)
    assert ConsentRestored() in scene.receive(scene.check(), A)
    asked: list[SendTo] = []
    late = False
    while not (late and asked):
        outputs = scene.at(scene.now + 0.1)
        late = late or ConsentLate() in outputs
        asked = checks(outputs) or asked if late else []
    assert ConsentRestored() in scene.answer(asked[-1])


def test_con2_a_copied_check_does_not_keep_consent() -> None:
    scene = Scene()
    scene.settle()
    check = scene.check()
    scene.receive(check, A)
    outputs: list[IceOutput] = []
    for _ in range(12):
        outputs += scene.at(scene.now + 1)
        outputs += scene.receive(check, A)
    assert ConsentLate() in outputs


def test_a_late_call_comes_back_on_a_new_path() -> None:
    scene = Scene()
    scene.settle()
    scene.at(scene.now + 12)
    to_new, _ = checks(scene.receive(scene.check(), B))
    scene.answer(to_new)
    outputs = scene.at(scene.now + 1)
    assert outputs == [PathSelected(B), ConsentRestored()]


def test_valid_paths_are_bounded_and_the_selected_one_is_never_dropped() -> None:
    scene = Scene()
    scene.settle()
    for port in range(100):
        scene.now += 0.001
        scene.receive(scene.check(), Path(b"", pack_address("203.0.113.1", 1000 + port)))
    assert scene.agent.is_valid(A)
    valid = [p for p in range(100) if scene.agent.is_valid(Path(b"", pack_address("203.0.113.1", 1000 + p)))]
    assert valid == [93, 94, 95, 96, 97, 98, 99]
    assert scene.agent.drops["ice_path_evicted"] == 93


def test_proofs_under_way_are_bounded() -> None:
    scene = Scene()
    scene.settle()
    outputs: list[IceOutput] = []
    for port in range(100):
        outputs += scene.receive(scene.check(use_candidate=True), Path(b"", pack_address("203.0.113.1", 1000 + port)))
    assert len(checks(outputs)) == 8
    assert scene.agent.drops["ice_checks_full"] == 92


def test_answers_that_belong_to_no_check_change_nothing() -> None:
    scene = Scene()
    scene.receive(binding_success(bytes(12), A.remote, CLIENT.pwd.encode()), A)
    assert scene.agent.drops == {"stun_transaction": 1}
    (check,) = checks(scene.receive(scene.check(), A))
    refusal = binding_error(check.data[8:20], 401, b"Unauthorized", None)
    assert scene.receive(refusal, A) == []
    assert scene.agent.drops["stun_integrity"] == 1
    refusal = binding_error(check.data[8:20], 500, b"Server Error", CLIENT.pwd.encode())
    scene.receive(refusal, A)
    assert scene.agent.drops["ice_check_refused"] == 1


def test_a_closed_agent_is_silent() -> None:
    scene = Scene()
    scene.settle()
    scene.agent.close(scene.now)
    scene.agent.close(scene.now)
    assert scene.receive(scene.check(use_candidate=True), A) == []
    scene.agent.media_authenticated(B, scene.now + 5)
    assert scene.at(scene.now + 60) == []
    assert not scene.agent.is_valid(A)
    assert scene.agent.drops == {"ice_closed": 1}


def test_an_indication_is_heard_without_a_word() -> None:
    scene = Scene()
    message = Message(Method.BINDING, Class.INDICATION, bytes(12))
    message.add_fingerprint()
    assert scene.receive(bytes(message), A) == []
    assert not scene.agent.is_valid(A)


def test_a_configuration_that_could_never_move_is_refused() -> None:
    with pytest.raises(LocalError):
        IceLiteConfig(max_paths=1)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.binary(max_size=160), kind=st.sampled_from([b"", b"\0\1", b"\1\1", b"\1\x11"]))
def test_receive_never_raises(data: bytes, kind: bytes) -> None:
    scene = Scene()
    scene.settle()
    assert scene.receive(kind + data, A) == []
    assert sum(scene.agent.drops.values()) == 1


@pytest.mark.parametrize(
    ("vector", "nominates"),
    [("chromium156", [False, True]), ("chromium156-sped", [False, True]), ("firefox153", [True])],
)
def test_captured_browser_checks_are_answered_and_select_their_path(vector: str, nominates: list[bool]) -> None:
    """The captured server's password is not recorded, so the integrity alone is written anew under one of ours."""
    agent: IceLite | None = None
    selected: list[bool] = []
    path = None
    for line in (VECTORS / f"{vector}.first-datagrams.jsonl").read_text().splitlines():
        datagram = json.loads(line)
        data = bytes.fromhex(datagram["hex"])
        if datagram["dir"] != "in" or data[0] > 3:
            continue
        binding = scan_binding_untrusted(data)
        assert binding.username is not None
        before = data[: binding.integrity]
        resigned = before + b"\x00\x08\x00\x14" + message_integrity(before, SERVER.pwd.encode())
        data = resigned + fingerprint(resigned)
        if agent is None:
            local, remote = binding.username.decode().split(":")
            agent = IceLite(
                IceCredentials(local, SERVER.pwd),
                IceCredentials(remote, CLIENT.pwd),
                entropy=random.Random(1).randbytes,
            )
        host, _, port = datagram["peer"].rpartition(":")
        path = Path(b"", pack_address(host, int(port)))
        agent.handle_timeout(datagram["t"])
        agent.receive_untrusted(data, path, datagram["t"])
        outputs = agent.poll()
        (answer,) = answers(outputs)
        assert answer.attributes["XOR-MAPPED-ADDRESS"] == (host, int(port))
        selected += [o.nominated for o in selections(outputs)]
    assert agent is not None
    assert selected == nominates
    assert agent.selected == path
    assert not agent.drops
