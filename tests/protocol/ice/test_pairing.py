"""Full and lite agents against each other, over a lossy network in virtual time, with a NAT in between."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterator

import pytest

from protocol.address import Path, TransportAddress, pack_address
from protocol.errors import DecodeError
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
    SendTo,
)
from protocol.stun import (
    binding_error,
    binding_request,
    binding_success,
    parse_message_untrusted,
    scan_binding_untrusted,
)

SERVER = IceCredentials("routetoken0123456789", "passwordoftheserver0123")
CLIENT = IceCredentials("OoHV", "348zhdFJTCsUvFJH5YqDQ1yn")
HOME = pack_address("10.0.0.7", 5000)


def candidate(host: str, port: int = 3478, priority: int = 2130706431) -> Candidate:
    return Candidate("1", 1, "udp", priority, host, port, "host")


class Network:
    """Two agents, the client behind a NAT. Datagrams are lost, doubled and reordered by a seeded source."""

    def __init__(
        self,
        client: IceFull,
        server: IceLite | IceFull,
        *,
        seed: int = 1,
        loss: float = 0.0,
        doubled: float = 0.0,
        delay: float = 0.01,
        jitter: float = 0.0,
    ) -> None:
        self.agents = {"client": client, "server": server}
        self.random = random.Random(seed)
        self.loss, self.doubled, self.delay, self.jitter = loss, doubled, delay, jitter
        self.public = pack_address("192.0.2.1", 40001)
        self.blocked: set[str] = set()  # the receivers that hear nothing
        self.dark: set[TransportAddress] = set()  # server addresses that nothing reaches
        self.now = 1000.0
        self.events: dict[str, list[tuple[float, IceOutput]]] = {"client": [], "server": []}
        self.sent: dict[str, list[tuple[float, SendTo]]] = {"client": [], "server": []}
        self.media_every: float | None = None
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def later(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (when, next(self._order), what))

    def drain(self, name: str) -> None:
        for output in self.agents[name].poll():
            if isinstance(output, SendTo):
                self.sent[name].append((self.now, output))
                self.carry(name, output)
            else:
                self.events[name].append((self.now, output))

    def carry(self, sender: str, output: SendTo) -> None:
        for _ in range(2 if self.random.random() < self.doubled else 1):
            if self.random.random() < self.loss:
                continue
            arrival = self.now + self.delay + self.random.random() * self.jitter
            if sender == "client":
                # The server's base is the address that the client sent to; it sees the NAT's present mapping.
                path = Path(bytes(output.path.remote), self.public)
                if output.path.remote not in self.dark:
                    self.later(arrival, lambda path=path: self.arrive("server", output.data, path))
            elif output.path.remote == self.public:
                path = Path(b"", TransportAddress(output.path.local))
                self.later(arrival, lambda path=path: self.arrive("client", output.data, path))

    def arrive(self, receiver: str, data: bytes, path: Path) -> None:
        if receiver not in self.blocked:
            self.agents[receiver].receive_untrusted(data, path, self.now)
            self.drain(receiver)

    def media(self) -> None:
        client = self.agents["client"]
        if client.selected is not None and self.random.random() >= self.loss:
            path = Path(bytes(client.selected.remote), self.public)
            self.later(self.now + self.delay, lambda: self.hear(path))
        if self.media_every is not None:
            self.later(self.now + self.media_every, self.media)

    def hear(self, path: Path) -> None:
        """What a peer does with SRTP: from a path that is not valid it is dropped."""
        server = self.agents["server"]
        if server.is_valid(path):
            server.media_authenticated(path, self.now)
            self.drain("server")

    def start(self) -> None:
        for name, agent in self.agents.items():
            if isinstance(agent, IceFull):
                agent.start(self.now)
                self.drain(name)

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        for _ in range(200_000):
            name, due = min(
                ((name, agent.next_timeout()) for name, agent in self.agents.items()), key=lambda pair: pair[1]
            )
            arrival = self._queue[0][0] if self._queue else math.inf
            if min(due, arrival) > until:
                self.now = until
                return
            if arrival <= due:
                self.now, _, what = heapq.heappop(self._queue)
                what()
            else:
                self.now = max(self.now, due)
                self.agents[name].handle_timeout(self.now)
                self.drain(name)
        raise AssertionError("an agent spins")

    def rebind(self) -> Path:
        """The NAT forgets: a new public port, and the old one leads nowhere. Returns the path that the server will see."""
        client = self.agents["client"]
        assert client.selected is not None
        port = int.from_bytes(self.public[:2], "big") + 1
        self.public = TransportAddress(port.to_bytes(2, "big") + self.public[2:])
        return Path(bytes(client.selected.remote), self.public)

    def selections(self, name: str) -> list[PathSelected]:
        return [event for _, event in self.events[name] if isinstance(event, PathSelected)]


def make(
    seed: int = 1,
    config: IceFullConfig | None = None,
    candidates: tuple[Candidate, ...] = (candidate("203.0.113.1"),),
    **conditions: float,
) -> tuple[Network, IceFull, IceLite]:
    client = IceFull(CLIENT, SERVER, entropy=random.Random(seed).randbytes, config=config)
    server = IceLite(SERVER, CLIENT, entropy=random.Random(seed + 1).randbytes)
    for remote in candidates:
        client.add_remote_candidate(remote)
    return Network(client, server, seed=seed, **conditions), client, server


def connected() -> Iterator[tuple[str, IceFullConfig]]:
    yield "firefox", IceFullConfig(nomination=Nomination.AGGRESSIVE)
    yield "chromium", IceFullConfig(repeat_nomination=True, consent_interval=2.65)
    yield "aiortc", IceFullConfig()


CLIENTS = [pytest.param(config, id=name) for name, config in connected()]


@pytest.mark.parametrize("config", CLIENTS)
def test_ice6_both_ends_settle_on_the_same_path_in_two_round_trips(config: IceFullConfig) -> None:
    network, client, server = make(config=config)
    network.start()
    network.run(0.041)
    assert client.selected == Path(b"", pack_address("203.0.113.1", 3478))
    assert server.selected == Path(bytes(pack_address("203.0.113.1", 3478)), network.public)
    assert server.nominated
    assert network.selections("client")[-1].nominated
    assert network.selections("server")[-1].nominated
    assert client.rtt == pytest.approx(0.02)
    assert server.rtt == pytest.approx(0.02)
    assert not client.drops
    assert not server.drops


def test_data_may_flow_on_the_first_valid_pair_one_round_trip_after_the_start() -> None:
    network, client, _ = make()
    network.start()
    network.run(0.021)
    assert network.selections("client") == [PathSelected(Path(b"", pack_address("203.0.113.1", 3478)), False)]
    assert client.is_valid(Path(b"", pack_address("203.0.113.1", 3478)))


def test_ice11_checks_are_paced_by_ta_and_go_by_priority() -> None:
    remotes = tuple(candidate(f"203.0.113.{n}", priority=1000 * n) for n in range(1, 6))
    network, _, _ = make(candidates=remotes)
    network.dark = {pack_address(f"203.0.113.{n}", 3478) for n in range(1, 6)}
    network.start()
    network.run(0.3)
    first = network.sent["client"][:5]
    assert [send.path.remote[-1] for _, send in first] == [5, 4, 3, 2, 1]
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(first)]
    assert gaps == pytest.approx([0.05] * 4)


def test_a_regular_nomination_prefers_the_better_pair_and_then_checks_no_other() -> None:
    remotes = (candidate("203.0.113.1", priority=1), candidate("203.0.113.2", priority=2), candidate("203.0.113.3", 9))
    network, client, server = make(candidates=remotes)
    network.dark = {pack_address("203.0.113.3", 9)}
    network.start()
    network.run(3)
    assert client.selected == Path(b"", pack_address("203.0.113.2", 3478))
    assert server.selected is not None
    assert server.selected.local == bytes(pack_address("203.0.113.2", 3478))
    count = len(network.sent["client"])
    network.run(30)
    later = [send for _, send in network.sent["client"][count:]]
    assert {send.path for send in later} == {client.selected}
    assert len([send for send in later if send.data[:2] == b"\0\1"]) <= 8  # consent, and nothing else


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("config", CLIENTS)
def test_row9_calls_connect_at_20_percent_loss_with_jitter_and_duplicates(seed: int, config: IceFullConfig) -> None:
    network, client, server = make(seed=seed, config=config, loss=0.2, doubled=0.1, delay=0.04, jitter=0.08)
    network.start()
    network.run(20)
    assert client.selected is not None
    assert server.nominated
    assert server.selected == Path(bytes(client.selected.remote), network.public)
    network.run(120)
    assert not any(isinstance(event, Failed) for _, event in network.events["client"])
    assert {event.path for event in network.selections("server")} == {server.selected}


def test_stun8_checks_repeat_with_the_same_id_at_doubling_intervals_and_then_give_up() -> None:
    network, client, _ = make(loss=1.0, config=IceFullConfig(connect_timeout=60))
    network.start()
    network.run(59)
    times = [when - 1000 for when, _ in network.sent["client"]]
    assert times == pytest.approx([0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5])
    assert len({send.data[8:20] for _, send in network.sent["client"]}) == 1
    network.run(2)
    assert [event for _, event in network.events["client"]] == [Failed("no_valid_path")]
    assert client.next_timeout() == math.inf


@pytest.mark.parametrize("config", CLIENTS)
def test_row18_after_a_rebinding_every_client_is_found_again_with_its_next_check(config: IceFullConfig) -> None:
    network, client, server = make(config=config)
    network.start()
    network.run(30)
    old = server.selected
    new = network.rebind()
    rebound = network.now
    proofs = len(network.sent["server"])
    network.run(7)
    assert (old, server.selected) == (old, new)
    moved = next(when for when, event in network.events["server"] if event == PathSelected(new))
    check = next(when for when, send in network.sent["client"] if when >= rebound)
    assert moved - check <= 0.5
    # The proof: a check of the server's to the new address went out before the move.
    assert any(
        send.path == new and send.data[:2] == b"\0\1" and when < moved for when, send in network.sent["server"][proofs:]
    )
    assert client.selected is not None


@pytest.mark.parametrize("config", CLIENTS)
def test_row18_with_media_the_path_moves_within_a_second_of_the_next_check(config: IceFullConfig) -> None:
    network, _, server = make(config=config)
    network.media_every = 0.02
    network.start()
    network.media()
    network.run(20)
    new = network.rebind()
    rebound = network.now
    network.run(7)
    assert server.selected == new
    moved = next(when for when, event in network.events["server"] if event == PathSelected(new))
    check = next(when for when, send in network.sent["client"] if when > rebound and send.data[:2] == b"\0\1")
    assert moved - check < 0.4


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("config", CLIENTS)
def test_row18_rebindings_under_loss_end_on_the_new_path(seed: int, config: IceFullConfig) -> None:
    network, _, server = make(seed=seed, config=config, loss=0.1, jitter=0.03)
    network.start()
    network.run(12)
    for _ in range(3):
        new = network.rebind()
        network.run(16)
        assert server.selected == new
    assert [e for _, e in network.events["server"] if not isinstance(e, PathSelected)] in (
        [],
        [ConsentLate(), ConsentRestored()],
    )


@pytest.mark.parametrize("with_use_candidate", [True, False])
def test_row14_checks_copied_from_the_wire_move_nothing_whether_they_arrive_first_or_last(
    with_use_candidate: bool,
) -> None:
    network, client, server = make(config=IceFullConfig(repeat_nomination=with_use_candidate))
    network.start()
    network.run(2)
    old = server.selected
    attacker = Path(b"", pack_address("198.51.100.66", 666))
    loot: list[SendTo] = []

    def copy(data: bytes) -> None:
        server.receive_untrusted(data, attacker, network.now)
        for output in server.poll():
            assert isinstance(output, SendTo)
            assert output.path in (attacker, old)
            if output.path == attacker:
                loot.append(output)
            else:
                network.carry("server", output)

    carry = network.carry

    def tapped(sender: str, output: SendTo) -> None:
        carry(sender, output)
        if sender == "client":
            network.later(network.now + network.random.choice([0.001, 0.5]), lambda: copy(output.data))

    network.carry = tapped  # type: ignore[method-assign]
    network.run(120)
    assert server.selected == old
    assert {event.path for event in network.selections("server")} == {old}
    assert not any(isinstance(event, ConsentLate) for _, event in network.events["server"])
    assert loot  # what overtook the original was answered: 64 bytes and a question that only the client can answer
    assert client.selected is not None


def test_con1_the_full_agent_asks_every_4_to_6_seconds_and_gives_up_after_30_silent_ones() -> None:
    network, client, _ = make()
    network.start()
    network.run(100)
    times = [when for when, send in network.sent["client"] if send.data[:2] == b"\0\1" and when > 1001]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert min(gaps) >= 4
    assert max(gaps) <= 6
    network.blocked = {"client"}
    heard = network.now
    network.run(40)
    (late, first), (failed, last) = network.events["client"][-2:]
    assert (first, last) == (ConsentLate(), Failed("consent_expired"))
    assert failed - late == pytest.approx(20)
    assert failed - heard <= 30
    assert client.selected is None


def test_con1_consent_comes_back() -> None:
    network, _, _ = make()
    network.start()
    network.run(10)
    network.blocked = {"client", "server"}
    network.run(15)
    network.blocked = set()
    network.run(10)
    for name in ("client", "server"):
        assert [e for _, e in network.events[name]][-2:] == [ConsentLate(), ConsentRestored()]


def full_pair(client_controls: bool, server_controls: bool, **conditions: float) -> tuple[Network, IceFull, IceFull]:
    client = IceFull(CLIENT, SERVER, controlling=client_controls, entropy=random.Random(1).randbytes)
    server = IceFull(SERVER, CLIENT, controlling=server_controls, entropy=random.Random(2).randbytes)
    client.add_remote_candidate(candidate("203.0.113.1"))
    return Network(client, server, **conditions), client, server


@pytest.mark.parametrize("client_controls", [True, False])
@pytest.mark.parametrize("server_controls", [True, False])
@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_ice3_two_full_agents_agree_on_roles_and_path(
    client_controls: bool, server_controls: bool, loss: float
) -> None:
    network, client, server = full_pair(client_controls, server_controls, loss=loss, jitter=0.02)
    network.start()
    network.run(15)
    assert client.controlling is not server.controlling
    if client_controls is not server_controls:
        assert client.controlling is client_controls
    assert client.selected == Path(b"", pack_address("203.0.113.1", 3478))
    assert server.selected == Path(bytes(pack_address("203.0.113.1", 3478)), network.public)
    assert network.selections("client")[-1].nominated
    assert network.selections("server")[-1].nominated


def test_ice5_a_full_agent_without_candidates_learns_its_peer_from_a_check_and_checks_back() -> None:
    network, _, server = full_pair(True, False)
    network.start()
    network.run(1)
    assert server.is_valid(Path(bytes(pack_address("203.0.113.1", 3478)), network.public))


def test_ice4_the_priority_of_a_learned_candidate_is_that_of_its_check() -> None:
    config = IceFullConfig(nomination_delay=0.5)
    agent = IceFull(SERVER, CLIENT, controlling=True, entropy=random.Random(1).randbytes, config=config)
    agent.start(0.0)
    paths = [Path(b"", pack_address("192.0.2.1", port)) for port in (1, 2, 3)]
    for number, (path, priority) in enumerate(zip(paths, (10, 30, 20), strict=True)):
        check = binding_request(
            bytes((number,)) * 12,
            f"{SERVER.ufrag}:{CLIENT.ufrag}".encode(),
            SERVER.pwd.encode(),
            priority=priority,
            controlling=False,
            tie_breaker=1,
        )
        agent.receive_untrusted(check, path, 0.0)
    nominated = None
    for step in range(1, 100):
        agent.handle_timeout(step * 0.01)
        for output in agent.poll():
            if isinstance(output, SendTo) and output.data[:2] == b"\0\1":
                if scan_binding_untrusted(output.data).use_candidate:
                    nominated = nominated or output.path
                    continue
                answer = binding_success(output.data[8:20], output.path.remote, CLIENT.pwd.encode())
                agent.receive_untrusted(answer, output.path, step * 0.01)
    assert nominated == paths[1]


def test_ice11_with_many_pairs_checks_repeat_more_slowly() -> None:
    client = IceFull(CLIENT, SERVER, entropy=random.Random(1).randbytes)
    for port in range(1, 41):
        client.add_remote_candidate(candidate("203.0.113.1", port))
    client.start(0.0)
    times: list[float] = []
    first = b""
    while not times or (len(times) < 2 and times[0] + 10 > client.next_timeout()):
        now = max(0.0, client.next_timeout())
        client.handle_timeout(now)
        for output in client.poll():
            if isinstance(output, SendTo) and (not first or output.data == first):
                first = output.data
                times.append(now)
    assert times[1] - times[0] == pytest.approx(40 * 0.05)  # Ta times the pairs that wait or are in progress


@pytest.mark.parametrize("full_server", [False, True], ids=["lite server", "full server"])
def test_ice9_without_media_each_end_still_sends_something_every_fifteen_seconds(full_server: bool) -> None:
    network, _, _ = make() if not full_server else full_pair(True, False)
    network.start()
    network.run(300)
    for name in ("client", "server"):
        times = [when for when, _ in network.sent[name]]
        assert times[-1] > 1285
        assert max(after - before for before, after in itertools.pairwise(times)) <= 15


def test_ice7_an_answer_from_another_address_ends_no_check() -> None:
    client = IceFull(CLIENT, SERVER, entropy=random.Random(1).randbytes)
    client.add_remote_candidate(candidate("203.0.113.1"))
    client.start(0.0)
    client.handle_timeout(0.0)
    (check,) = client.poll()
    assert isinstance(check, SendTo)
    server = IceLite(SERVER, CLIENT, entropy=random.Random(2).randbytes)
    server.receive_untrusted(check.data, Path(b"", HOME), 0.0)
    answer = next(o for o in server.poll() if isinstance(o, SendTo))
    client.receive_untrusted(answer.data, Path(b"", pack_address("203.0.113.2", 3478)), 0.01)
    assert client.poll() == []
    assert client.drops == {"ice_answer_path": 1}
    client.receive_untrusted(answer.data, check.path, 0.02)
    assert PathSelected(check.path, nominated=False) in client.poll()


def test_a_refused_check_fails_its_pair_and_an_unauthenticated_refusal_does_not() -> None:
    client = IceFull(CLIENT, SERVER, entropy=random.Random(1).randbytes)
    client.add_remote_candidate(candidate("203.0.113.1"))
    client.start(0.0)
    client.handle_timeout(0.0)
    (check,) = client.poll()
    assert isinstance(check, SendTo)
    client.receive_untrusted(binding_error(check.data[8:20], 401, b"Unauthorized", None), check.path, 0.01)
    assert client.drops == {"stun_integrity": 1}
    client.handle_timeout(0.5)
    assert client.poll() == [check]
    client.receive_untrusted(binding_error(check.data[8:20], 400, b"No", SERVER.pwd.encode()), check.path, 0.51)
    client.handle_timeout(20.0)
    assert client.poll() == []


def test_trk1_candidates_may_trickle_in_after_the_start() -> None:
    network, client, _ = make(candidates=())
    network.start()
    network.run(5)
    assert network.sent["client"] == []
    client.add_remote_candidate(Candidate.parse_untrusted("1 1 udp 1 4f2f1b9c.local 9 typ host"))
    client.add_remote_candidate(candidate("203.0.113.1"))
    network.run(1)
    assert client.selected is not None
    assert client.drops == {"ice_candidate_unusable": 1}


def test_pairs_are_bounded() -> None:
    client = IceFull(CLIENT, SERVER, entropy=random.Random(1).randbytes)
    for port in range(1, 101):
        client.add_remote_candidate(candidate("203.0.113.1", port))
    assert client.drops == {"ice_pairs_full": 36}


def test_a_closed_full_agent_is_silent() -> None:
    network, client, _ = make()
    network.start()
    network.run(1)
    client.close(network.now)
    client.close(network.now)
    before = len(network.sent["client"])
    check = binding_request(bytes(12), b"OoHV:x", b"k", priority=1, controlling=False, tie_breaker=1)
    client.receive_untrusted(check, Path(b"", HOME), network.now)
    client.add_remote_candidate(candidate("203.0.113.9"))
    network.run(60)
    assert len(network.sent["client"]) == before
    assert client.next_timeout() == math.inf


def test_a_whole_call_repeats_byte_for_byte_from_its_seed() -> None:
    def play() -> list[tuple[float, SendTo]]:
        network, _, _ = make(seed=7, loss=0.2, jitter=0.05)
        network.start()
        network.run(60)
        return network.sent["client"] + network.sent["server"]

    assert play() == play()


def test_full_agents_survive_noise() -> None:
    source = random.Random(3)
    network, client, server = make()
    network.start()
    network.run(0.005)
    for _ in range(300):
        data = bytearray(network.sent["client"][0][1].data)
        data[source.randrange(len(data))] ^= 1 << source.randrange(8)
        for agent in (client, server):
            agent.receive_untrusted(bytes(data), Path(b"", HOME), network.now)
            assert agent.poll() == []
        with pytest.raises(DecodeError):
            scan_binding_untrusted(bytes(data))
    network.run(1)
    assert parse_message_untrusted(network.sent["server"][0][1].data)
    assert server.nominated
