"""ICE restarts (RFC 8445 §9): both credentials of both sides change, and nobody who talks hears of it.

The old pair carries media, and its checks are answered, until the new credentials have selected a pair.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from protocol.address import Path, pack_address
from protocol.fsm import Cell, IllegalTransition, Machine, Region, To
from protocol.ice import (
    Candidate,
    ConsentLate,
    ConsentRestored,
    Failed,
    IceCredentials,
    IceFull,
    IceFullConfig,
    IceLite,
    IceOutput,
    Nomination,
    PathSelected,
    RestartCompleted,
    SendTo,
)
from protocol.ice.full_state import FULL_AGENT
from protocol.ice.lite import LITE_PATH
from protocol.ice.pair import PAIR
from protocol.stun import Class, authenticate, parse_message_untrusted, scan_binding_untrusted
from protocol.stun.binding import REQUEST, SUCCESS, binding_request, binding_success

SERVER, CLIENT = IceCredentials("routetoken0123456789", "s" * 24), IceCredentials("OoHV", "c" * 24)
NEW_SERVER, NEW_CLIENT = IceCredentials("anothertoken01234567", "t" * 24), IceCredentials("p7Qx", "d" * 24)
THIRD_SERVER, THIRD_CLIENT = IceCredentials("thethirdtoken0123456", "u" * 24), IceCredentials("Zz09", "e" * 24)
A, B, C = (Path(b"", pack_address("192.0.2.1", port)) for port in (40001, 40002, 40003))
ATTACKER = Path(b"", pack_address("198.51.100.66", 666))


class Scene:
    """A lite agent with a nominated and proven path A; its client is written out by hand."""

    def __init__(self, *, nominated: bool = True) -> None:
        self.random = random.Random(1)
        self.agent = IceLite(SERVER, CLIENT, entropy=self.random.randbytes)
        self.now = 100.0
        self.answer(requests(self.check(A, use_candidate=nominated))[0])
        assert (self.agent.selected, self.agent.nominated) == (A, nominated)

    def restart(self, local: IceCredentials = NEW_SERVER, remote: IceCredentials = NEW_CLIENT) -> None:
        self.agent.restart(local, remote, self.now)
        assert self.agent.poll() == []

    def request(
        self,
        local: IceCredentials = SERVER,
        remote: IceCredentials = CLIENT,
        *,
        use_candidate: bool = False,
        nomination: int | None = None,
    ) -> bytes:
        return binding_request(
            self.random.randbytes(12),
            f"{local.ufrag}:{remote.ufrag}".encode(),
            local.pwd.encode(),
            priority=1,
            controlling=True,
            tie_breaker=5,
            use_candidate=use_candidate,
            nomination=nomination,
        )

    def receive(self, data: bytes, path: Path) -> list[IceOutput]:
        self.agent.receive_untrusted(data, path, self.now)
        return self.agent.poll()

    def check(
        self,
        path: Path,
        local: IceCredentials = SERVER,
        remote: IceCredentials = CLIENT,
        *,
        use_candidate: bool = False,
        nomination: int | None = None,
    ) -> list[IceOutput]:
        return self.receive(self.request(local, remote, use_candidate=use_candidate, nomination=nomination), path)

    def new_check(self, path: Path, *, use_candidate: bool = False, nomination: int | None = None) -> list[IceOutput]:
        return self.check(path, NEW_SERVER, NEW_CLIENT, use_candidate=use_candidate, nomination=nomination)

    def answer(self, request: SendTo, key: str = CLIENT.pwd, path: Path | None = None) -> list[IceOutput]:
        success = binding_success(request.data[8:20], request.path.remote, key.encode())
        return self.receive(success, path or request.path)

    def at(self, now: float) -> list[IceOutput]:
        outputs: list[IceOutput] = []
        while (due := self.agent.next_timeout()) <= now:
            self.now = max(self.now, due)
            self.agent.handle_timeout(self.now)
            outputs += self.agent.poll()
        self.now = now
        return outputs


def requests(outputs: list[IceOutput]) -> list[SendTo]:
    return [o for o in outputs if isinstance(o, SendTo) and o.data[:2] == b"\0\1"]


def is_answered(outputs: list[IceOutput], key: str) -> bool:
    """Whether the one answer among them is a success under this password."""
    (answer,) = [o.data for o in outputs if isinstance(o, SendTo) and o.data[:2] != b"\0\1"]
    message = parse_message_untrusted(answer)
    return message.message_class is Class.RESPONSE and message.check_message_integrity(key.encode())


def notices(outputs: list[IceOutput]) -> list[IceOutput]:
    return [o for o in outputs if not isinstance(o, SendTo)]


# The lite agent


def test_ice8_a_restart_alone_moves_nothing_and_sends_nothing() -> None:
    scene = Scene()
    scene.restart()
    assert (scene.agent.selected, scene.agent.is_valid(A)) == (A, True)
    assert notices(scene.at(scene.now + 3)) == []


def test_ice8_checks_with_either_credentials_are_answered_until_the_new_ones_have_selected_a_path() -> None:
    scene = Scene()
    scene.restart()
    assert is_answered(scene.check(A), SERVER.pwd)
    assert is_answered(scene.new_check(A), NEW_SERVER.pwd)
    assert is_answered(scene.check(A), SERVER.pwd)
    outputs = scene.new_check(A, use_candidate=True)
    assert is_answered(outputs, NEW_SERVER.pwd)
    assert notices(outputs) == [RestartCompleted()]
    assert scene.check(A) == []
    assert scene.agent.drops["stun_integrity"] == 1
    assert is_answered(scene.new_check(A), NEW_SERVER.pwd)


@pytest.mark.parametrize(
    ("local", "key", "remote"),
    [
        (NEW_SERVER, SERVER.pwd, NEW_CLIENT),
        (SERVER, NEW_SERVER.pwd, CLIENT),
        (SERVER, SERVER.pwd, NEW_CLIENT),
        (NEW_SERVER, NEW_SERVER.pwd, CLIENT),
    ],
)
def test_ice8_credentials_of_both_generations_do_not_mix(
    local: IceCredentials, key: str, remote: IceCredentials
) -> None:
    scene = Scene()
    scene.restart()
    outputs = scene.check(B, IceCredentials(local.ufrag, key), remote, use_candidate=True)
    assert not outputs or not is_answered(outputs, key)
    assert not scene.agent.is_valid(B)
    assert scene.agent.selected == A


def test_ice8_a_new_path_takes_over_when_our_own_check_with_the_new_credentials_is_answered() -> None:
    scene = Scene()
    scene.restart()
    outputs = scene.new_check(B, use_candidate=True)
    assert notices(outputs) == []
    (proof,) = requests(outputs)
    binding = scan_binding_untrusted(proof.data)
    assert binding.username == f"{NEW_CLIENT.ufrag}:{NEW_SERVER.ufrag}".encode()
    assert authenticate(proof.data, binding, NEW_CLIENT.pwd.encode())
    assert scene.agent.selected == A
    assert is_answered(scene.check(A), SERVER.pwd)
    assert scene.answer(proof, CLIENT.pwd) == []  # the old password proves nothing here
    assert notices(scene.answer(proof, NEW_CLIENT.pwd)) == [PathSelected(B), RestartCompleted()]
    assert scene.agent.is_valid(A)  # what was on its way along the old path is still welcome
    assert scene.check(A) == []


def test_ice8_while_it_restarts_a_rebinding_is_followed_under_the_old_credentials_too() -> None:
    scene = Scene()
    scene.restart()
    (proof,) = requests(scene.check(B, use_candidate=True))
    assert notices(scene.answer(proof)) == [PathSelected(B, nominated=False)]
    assert is_answered(scene.check(B), SERVER.pwd)
    assert notices(scene.new_check(B, use_candidate=True)) == [RestartCompleted()]


def test_ice8_without_a_nomination_silence_of_the_old_path_moves_to_the_new_one() -> None:
    scene = Scene()
    scene.restart()
    scene.at(scene.now + 2)
    to_new, to_old = requests(scene.new_check(B))
    assert scan_binding_untrusted(to_old.data).username == f"{CLIENT.ufrag}:{SERVER.ufrag}".encode()
    scene.answer(to_new, NEW_CLIENT.pwd)
    assert notices(scene.at(scene.now + 1)) == [PathSelected(B), RestartCompleted()]


def test_ice8_after_the_restart_a_path_of_before_is_asked_with_the_new_credentials() -> None:
    scene = Scene()
    scene.check(B)
    scene.restart()
    scene.new_check(A, use_candidate=True)
    scene.now += 1
    scene.agent.media_authenticated(B, scene.now)
    (proof,) = requests(scene.agent.poll())
    assert scan_binding_untrusted(proof.data).username == f"{NEW_CLIENT.ufrag}:{NEW_SERVER.ufrag}".encode()
    assert notices(scene.answer(proof, NEW_CLIENT.pwd)) == [PathSelected(B)]


def test_con1_consent_is_asked_for_under_the_old_credentials_until_the_restart_is_complete() -> None:
    scene = Scene()
    scene.restart()
    (asked,) = requests(scene.at(scene.now + 6.1))
    assert scan_binding_untrusted(asked.data).username == f"{CLIENT.ufrag}:{SERVER.ufrag}".encode()
    assert scene.answer(asked) == []
    scene.new_check(A, use_candidate=True)
    (asked,) = requests(scene.at(scene.now + 6.1))
    assert scan_binding_untrusted(asked.data).username == f"{NEW_CLIENT.ufrag}:{NEW_SERVER.ufrag}".encode()


def test_con1_a_restart_that_nobody_follows_keeps_no_consent() -> None:
    scene = Scene()
    scene.restart()
    assert ConsentLate() in scene.at(scene.now + 11)
    scene.restart(THIRD_SERVER, THIRD_CLIENT)
    outputs = scene.check(A, THIRD_SERVER, THIRD_CLIENT, use_candidate=True)
    assert notices(outputs) == [ConsentRestored(), RestartCompleted()]


def test_ice8_a_second_restart_replaces_the_first_and_the_old_path_stays() -> None:
    scene = Scene()
    scene.restart()
    scene.restart(THIRD_SERVER, THIRD_CLIENT)
    assert scene.new_check(A) == []
    assert is_answered(scene.check(A), SERVER.pwd)
    assert notices(scene.check(A, THIRD_SERVER, THIRD_CLIENT, use_candidate=True)) == [RestartCompleted()]
    assert scene.check(A) == []


def test_ice8_a_restart_before_the_first_check_leaves_only_the_new_credentials() -> None:
    agent = IceLite(SERVER, CLIENT, entropy=random.Random(1).randbytes)
    agent.restart(NEW_SERVER, NEW_CLIENT, 1.0)
    scene = Scene()
    scene.agent = agent
    assert scene.check(A) == []
    assert notices(scene.new_check(A, use_candidate=True)) == [PathSelected(A)]


def test_ice8_a_restart_of_a_path_that_was_not_yet_nominated_asks_for_proof_as_any_other() -> None:
    scene = Scene(nominated=False)
    scene.restart()
    outputs = scene.new_check(B, use_candidate=True)
    assert notices(outputs) == []
    assert notices(scene.answer(requests(outputs)[0], NEW_CLIENT.pwd)) == [PathSelected(B), RestartCompleted()]
    assert scene.agent.nominated


def test_row14_a_copied_check_of_a_restart_moves_nothing_though_it_overtakes_the_original() -> None:
    scene = Scene()
    scene.restart()
    check = scene.request(NEW_SERVER, NEW_CLIENT, use_candidate=True)
    (loot,) = requests(scene.receive(check, ATTACKER))
    (proof,) = requests(scene.receive(check, B))  # the original is asked as well, or the copy would have stopped it
    assert scene.answer(loot, NEW_CLIENT.pwd, path=B) == []
    assert notices(scene.answer(proof, NEW_CLIENT.pwd)) == [PathSelected(B), RestartCompleted()]
    assert scene.agent.selected == B


def test_a_closed_agent_does_not_restart() -> None:
    scene = Scene()
    scene.agent.close(scene.now)
    scene.restart()
    assert scene.new_check(A, use_candidate=True) == []
    assert scene.agent.next_timeout() == math.inf


# Renomination: a greater value moves, and nothing else does


def test_ice6_a_greater_value_on_the_path_in_use_outranks_an_older_one_from_elsewhere() -> None:
    scene = Scene(nominated=False)
    scene.check(A, nomination=5)
    scene.check(A, nomination=7)
    assert requests(scene.check(B, nomination=6)) == []
    assert len(requests(scene.check(B, nomination=8))) == 1


def test_ice6_a_nomination_overtaken_while_it_is_being_proven_moves_nothing() -> None:
    scene = Scene()
    (sixth,) = requests(scene.check(B, nomination=6))
    (seventh,) = requests(scene.check(C, nomination=7))
    assert notices(scene.answer(seventh)) == [PathSelected(C)]
    assert notices(scene.answer(sixth)) == []
    assert scene.agent.selected == C


def test_ice6_values_count_anew_after_a_restart() -> None:
    scene = Scene()
    scene.check(A, nomination=1000)
    scene.restart()
    (proof,) = requests(scene.new_check(B, nomination=1))
    assert notices(scene.answer(proof, NEW_CLIENT.pwd)) == [PathSelected(B), RestartCompleted()]


# The full agent


class Wire:
    """Two agents without loss, 10 ms apart; a full agent's base is the path it was asked to send along."""

    def __init__(self, client: IceFull, server: IceLite | IceFull) -> None:
        self.client, self.server = client, server
        self.now = 1000.0
        self.heard: dict[str, list[tuple[float, IceOutput]]] = {"client": [], "server": []}
        self.flying: list[tuple[float, str, bytes, Path]] = []
        self.requests: list[tuple[str, bytes]] = []  # USERNAMEs, by the sender
        self.lost: Callable[[str, bytes], bool] = lambda _sender, _data: False
        self.home = pack_address("192.0.2.7", 5000)

    def drain(self) -> None:
        for name, agent in (("client", self.client), ("server", self.server)):
            for output in agent.poll():
                if not isinstance(output, SendTo):
                    self.heard[name].append((self.now, output))
                    continue
                if output.data[:2] == b"\0\1":
                    self.requests.append((name, scan_binding_untrusted(output.data).username or b""))
                if self.lost(name, output.data):
                    continue
                if name == "client":
                    arrival = ("server", output.data, Path(bytes(output.path.remote), self.home))
                else:
                    arrival = ("client", output.data, Path(b"", type(self.home)(output.path.local)))
                self.flying.append((self.now + 0.01, *arrival))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            self.drain()
            timer = min(self.client.next_timeout(), self.server.next_timeout())
            arrival = min(self.flying, default=(math.inf,), key=lambda flight: flight[0])[0]
            if min(timer, arrival) > end:
                self.now = end
                return
            self.now = max(self.now, min(timer, arrival))
            if arrival <= timer:
                first = min(self.flying, key=lambda flight: flight[0])
                self.flying.remove(first)
                _, receiver, data, path = first
                (self.client if receiver == "client" else self.server).receive_untrusted(data, path, self.now)
            else:
                self.client.handle_timeout(self.now)
                self.server.handle_timeout(self.now)

    def restart(self, client: IceCredentials, server: IceCredentials, host: str = "203.0.113.1") -> None:
        self.client.restart(client, server, self.now)
        self.client.add_remote_candidate(candidate(host))
        self.server.restart(server, client, self.now)

    def notices(self, name: str) -> list[IceOutput]:
        return [notice for _, notice in self.heard[name]]


def candidate(host: str) -> Candidate:
    return Candidate("1", 1, "udp", 2130706431, host, 3478, "host")


def connected(config: IceFullConfig | None = None, *, full_server: bool = False) -> Wire:
    client = IceFull(CLIENT, SERVER, entropy=random.Random(1).randbytes, config=config)
    client.add_remote_candidate(candidate("203.0.113.1"))
    client.start(1000.0)
    server: IceFull | IceLite
    if full_server:
        server = IceFull(SERVER, CLIENT, controlling=False, entropy=random.Random(2).randbytes)
        server.start(1000.0)
    else:
        server = IceLite(SERVER, CLIENT, entropy=random.Random(2).randbytes)
    wire = Wire(client, server)
    wire.run(12)
    assert client.selected == Path(b"", candidate("203.0.113.1").transport_address or pack_address("::", 0))
    assert server.selected is not None
    wire.heard = {"client": [], "server": []}
    return wire


CONFIGS = [
    pytest.param(IceFullConfig(nomination=Nomination.AGGRESSIVE), id="aggressive"),
    pytest.param(IceFullConfig(repeat_nomination=True), id="repeating"),
    pytest.param(IceFullConfig(), id="regular"),
]


@pytest.mark.parametrize("full_server", [False, True], ids=["lite server", "full server"])
@pytest.mark.parametrize("config", CONFIGS)
def test_ice8_both_ends_complete_a_restart_along_the_same_path_without_telling_of_a_move(
    config: IceFullConfig, full_server: bool
) -> None:
    wire = connected(config, full_server=full_server)
    before = wire.client.selected, wire.server.selected
    wire.restart(NEW_CLIENT, NEW_SERVER)
    wire.run(1)
    assert (wire.client.selected, wire.server.selected) == before
    assert wire.notices("client") == wire.notices("server") == [RestartCompleted()]
    del wire.requests[:]
    wire.run(60)
    assert {username for name, username in wire.requests if name == "client"} == {
        f"{NEW_SERVER.ufrag}:{NEW_CLIENT.ufrag}".encode()
    }
    assert not wire.client.drops
    assert not wire.server.drops


@pytest.mark.parametrize("full_server", [False, True], ids=["lite server", "full server"])
@pytest.mark.parametrize("config", CONFIGS)
def test_ice8_a_restart_onto_another_address_moves_both_ends_once(config: IceFullConfig, full_server: bool) -> None:
    wire = connected(config, full_server=full_server)
    old = wire.client.selected
    assert old is not None
    wire.restart(NEW_CLIENT, NEW_SERVER, "203.0.113.9")
    wire.run(1)
    new = Path(b"", pack_address("203.0.113.9", 3478))
    assert wire.client.selected == new
    assert wire.server.selected == Path(bytes(new.remote), wire.home)
    assert wire.notices("client") == [PathSelected(new), RestartCompleted()]
    assert [type(notice) for notice in wire.notices("server")] == [PathSelected, RestartCompleted]
    assert wire.client.is_valid(old)  # for what was on its way
    wire.run(60)
    assert not any(isinstance(notice, Failed | ConsentLate) for notice in wire.notices("client"))


@pytest.mark.parametrize("seed", range(12))
def test_ice8_restarts_one_after_another_under_loss_end_with_both_on_the_last_credentials(seed: int) -> None:
    chance = random.Random(seed)
    wire = connected(IceFullConfig(nomination=chance.choice(list(Nomination))), full_server=seed % 2 == 1)
    wire.lost = lambda _sender, _data: chance.random() < 0.2
    host = ""
    for number in range(chance.randint(1, 6)):
        mine, yours = IceCredentials(f"cli{number}", "m" * 24), IceCredentials(f"srv{number}", "y" * 24)
        host = f"203.0.113.{chance.randint(1, 3)}"
        wire.restart(mine, yours, host)
        wire.run(chance.random() * 2)
    wire.run(30)
    wire.lost = lambda _sender, _data: False
    del wire.requests[:]
    wire.run(20)
    path = Path(b"", pack_address(host, 3478))
    assert wire.client.selected == path
    assert wire.server.selected == Path(bytes(path.remote), wire.home)
    assert {username for _, username in wire.requests} <= {
        f"{yours.ufrag}:{mine.ufrag}".encode(),
        f"{mine.ufrag}:{yours.ufrag}".encode(),
    }
    assert not any(isinstance(notice, Failed) for notice in wire.notices("client") + wire.notices("server"))


def test_ice8_a_restart_that_finds_no_pair_leaves_the_old_one_with_its_consent() -> None:
    wire = connected()
    old = wire.client.selected
    wire.client.restart(NEW_CLIENT, NEW_SERVER, wire.now)
    wire.client.add_remote_candidate(candidate("203.0.113.9"))
    wire.lost = lambda sender, data: sender == "client" and NEW_SERVER.ufrag.encode() in data
    wire.run(120)
    assert wire.client.selected == old
    assert wire.notices("client") == wire.notices("server") == []
    asked = [username for name, username in wire.requests if name == "client"][-5:]
    assert set(asked) == {f"{SERVER.ufrag}:{CLIENT.ufrag}".encode()}
    wire.lost = lambda _sender, _data: True
    wire.run(40)
    assert wire.notices("client") == [ConsentLate(), Failed("consent_expired")]


def test_ice8_a_full_agent_may_restart_before_it_has_a_path() -> None:
    client = IceFull(CLIENT, SERVER, entropy=random.Random(1).randbytes)
    client.add_remote_candidate(candidate("203.0.113.9"))
    client.start(1000.0)
    server = IceLite(NEW_SERVER, NEW_CLIENT, entropy=random.Random(2).randbytes)
    wire = Wire(client, server)
    wire.run(20)
    assert client.selected is None
    client.restart(NEW_CLIENT, NEW_SERVER, wire.now)
    client.add_remote_candidate(candidate("203.0.113.1"))
    wire.run(1)
    assert [type(notice) for notice in wire.notices("client")] == [PathSelected, PathSelected]


def test_ice6_a_controlled_full_agent_moves_only_to_a_greater_renomination() -> None:
    agent = IceFull(SERVER, CLIENT, controlling=False, entropy=random.Random(1).randbytes)
    agent.start(0.0)

    def nominate(path: Path, value: int, now: float) -> list[IceOutput]:
        """A check of the controlling peer; whatever the agent asks back is answered."""
        check = binding_request(
            random.Random(f"{path}{value}{now}").randbytes(12),
            f"{SERVER.ufrag}:{CLIENT.ufrag}".encode(),
            SERVER.pwd.encode(),
            priority=1,
            controlling=True,
            tie_breaker=1,
            nomination=value,
        )
        agent.receive_untrusted(check, path, now)
        agent.handle_timeout(now)
        told: list[IceOutput] = []
        for output in agent.poll():
            if isinstance(output, SendTo) and scan_binding_untrusted(output.data).kind == REQUEST:
                answer = binding_success(output.data[8:20], output.path.remote, CLIENT.pwd.encode())
                assert scan_binding_untrusted(answer).kind == SUCCESS
                agent.receive_untrusted(answer, output.path, now)
                told += notices(agent.poll())
            elif not isinstance(output, SendTo):
                told.append(output)
        return told

    assert PathSelected(A) in nominate(A, 3, 1.0)
    assert nominate(B, 2, 2.0) == []
    assert nominate(B, 3, 3.0) == []
    assert nominate(B, 4, 4.0) == [PathSelected(B)]
    assert nominate(A, 4, 5.0) == []
    assert nominate(A, 5, 6.0) == [PathSelected(A)]


# The tables


@pytest.mark.parametrize("region", [LITE_PATH, FULL_AGENT, PAIR], ids=lambda region: region.name)
def test_every_cell_of_the_ice_tables_does_what_it_says(region: Region) -> None:
    for state, row in region.rows.items():
        for event, cell in zip(region.events, row, strict=True):
            machine = Machine((region,))
            machine._place = machine._table.place(machine._place.states | {type(state): state})
            if cell is Cell.ILLEGAL:
                with pytest.raises(IllegalTransition):
                    machine.fire(event())
            else:
                machine.fire(event())
            assert machine.state(type(state)) is (cell.state if isinstance(cell, To) else state)


@pytest.mark.parametrize("region", [LITE_PATH, FULL_AGENT, PAIR], ids=lambda region: region.name)
def test_every_state_of_the_ice_tables_can_be_reached(region: Region) -> None:
    reached = {region.initial}
    while True:
        more = {cell.state for state in reached for cell in region.rows[state] if isinstance(cell, To)} | reached
        if more == reached:
            break
        reached = more
    assert reached == set(region.rows)
