"""Every sequence of messages, in any order, against both cores: only the legal ones may connect.

The letters are those whose order the faults of record got wrong (CVE-2022-29222, CVE-2014-0224 and the patterns that
state fuzzing found): all messages of the peer's role, ChangeCipherSpec, and application data, which must never be
delivered early. The client adds the empty certificate and close_notify, the server HelloVerifyRequest. Not among them
are messages of the wrong role and warnings, which are dropped in every state alike: they would double the alphabet
and meet one branch each.

A tree of words is walked: the children of a word are branches of one core and one rogue, which had met that word. A
rogue is as strong as an attacker can be (see dtls_rogues), so that only the order of its messages is on trial. After
every letter: nothing is raised; what was not taken is met by silence, or by an alert and the end; nothing is delivered
before the connection; and who connects has had exactly the messages of a handshake taken, in order.

A client says six letters in a whole handshake, a server seven: words of six leave no room for noise beside success. So
shorter words are also walked behind each beginning of the legal handshake.

By default all words of four letters are walked, and of three behind each beginning. `./just campaign` walks six and
four: 1.3 million words, 130 µs of CPU each, three and a half minutes on two cores.
"""

from __future__ import annotations

import enum
import io
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field, is_dataclass, replace
from types import BuiltinFunctionType, FunctionType, SimpleNamespace
from typing import Any

import pytest
from dtls_rogues import Rogue, RogueClient, RogueServer

from protocol.dtls import (
    ApplicationData,
    Closed,
    Connected,
    Datagram,
    DtlsEndpoint,
    Role,
    association12,
    client12,
    server12,
)
from protocol.dtls.client12 import Client12, ClientState
from protocol.dtls.fragments import HandshakeMessage
from protocol.dtls.handshake12 import Action, Handshake12, Parameters
from protocol.dtls.messages import ClientKeyExchange, Finished, ServerHelloDone
from protocol.dtls.registry import ContentType, SignatureScheme
from protocol.dtls.server12 import Server12, ServerState
from protocol.fsm import Region, To, to

# Branching

_shared: dict[int, Any] = {}
_is_shared: dict[type, bool] = dict.fromkeys((int, float, bool, bytes, str, type(None), tuple, list, dict), False)


def never_changes(kind: type) -> bool:
    """What branches may share. Whatever else a core comes to hold is copied, or cannot be pickled and says so."""
    if is_dataclass(kind):
        return kind.__dataclass_params__.frozen
    return issubclass(kind, (enum.Enum, type, FunctionType, BuiltinFunctionType)) or "cryptography" in kind.__module__


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: object) -> int | None:
        kind = type(value)
        if kind not in _is_shared:
            _is_shared[kind] = never_changes(kind)
        if not _is_shared[kind]:
            return None
        _shared[id(value)] = value
        return id(value)


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, key: int) -> object:
        return _shared[key]


class Snapshot:
    """A core at one moment, from which any number of cores go on."""

    def __init__(self, core: DtlsEndpoint) -> None:
        file = io.BytesIO()
        _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(core)
        self._data = file.getvalue()

    def core(self) -> DtlsEndpoint:
        return _Unpickler(io.BytesIO(self._data)).load()


# The campaign


@dataclass
class Rules:
    """What the letters of one role mean for the core that meets them."""

    role: Role  # of the core
    letters: str
    legal: str  # the messages of a handshake; S stands where it is sent
    answered: str  # what the core answers by a flight
    fatal: frozenset[str]  # reasons for which it may end
    connecting: frozenset[str]  # of the words of six letters
    changing: int  # how many messages must have been taken before a ChangeCipherSpec counts


SERVER = Rules(
    Role.SERVER,
    letters="HCEKVSFAN",
    legal="HCKVSF",
    answered="HF",
    fatal=frozenset({"certificate_missing", "close_notify"}),
    # Datagrams overtake each other and nothing protects the place of a ChangeCipherSpec in its flight.
    connecting=frozenset({"HSCKVF", "HCSKVF", "HCKSVF", "HCKVSF"}),
    changing=1,
)
CLIENT = Rules(
    Role.CLIENT,
    letters="RHCKQDSFA",
    legal="HCKQDSF",
    answered="RDF",
    fatal=frozenset({"too_many_cookies", "certificate_not_requested"}),
    connecting=frozenset(),  # it takes seven
    changing=5,
)
BOTH = pytest.mark.parametrize("rules", [SERVER, CLIENT], ids=lambda rules: rules.role.name.lower())


@dataclass
class Node:
    """A core that has met a word, and the rogue that said it."""

    core: DtlsEndpoint
    rogue: Rogue
    word: str = ""
    taken: str = ""  # the messages that brought the handshake on
    is_connected: bool = False
    is_closed: bool = False


@dataclass
class Campaign:
    rules: Rules
    root: Node
    words: int = 0
    connecting: set[str] = field(default_factory=set)

    def walk(self, node: Node, depth: int) -> None:
        """All words of up to `depth` more letters."""
        if not depth:
            return
        for letter, child in zip(self.rules.letters, self.branches(node)):
            self.play(child, letter)
            self.walk(child, depth - 1)

    def branches(self, node: Node) -> Iterator[Node]:
        snapshot = None if node.is_closed else Snapshot(node.core)
        for _ in self.rules.letters:
            # A closed core takes nothing in, so that all branches may share it.
            core = node.core if snapshot is None else snapshot.core()
            yield Node(core, node.rogue.branch(), node.word, node.taken, node.is_connected, node.is_closed)

    def behind(self, prefix: str) -> Node:
        """A node that has met a beginning of the legal handshake."""
        node = Node(Snapshot(self.root.core).core(), self.root.rogue.branch())
        for letter in prefix:
            self.play(node, letter)
        assert node.taken == prefix.replace("S", ""), prefix
        return node

    def play(self, node: Node, letter: str) -> None:
        core, rogue = node.core, node.rogue
        node.word += letter
        self.words += 1
        number = next_number(core)
        core.receive_untrusted(rogue.say(letter, number), 0.0)
        outputs = core.poll()
        was_taken = next_number(core) > number
        answers = [output.data for output in outputs if isinstance(output, Datagram)]
        rogue.learn(was_taken, answers)
        if was_taken:
            node.taken += "F" if letter == "S" else letter  # a Finished that had come too early was held
        was_closed = node.is_closed
        for output in outputs:
            if isinstance(output, Connected):
                assert node.taken == self.rules.legal.replace("S", ""), f"{node.word} connects by {node.taken!r}"
                assert not node.is_connected, node.word
                node.is_connected = True
                self.connecting.add(node.word)
            elif isinstance(output, ApplicationData):
                assert node.is_connected, node.word
            elif isinstance(output, Closed):
                assert output.reason in self.rules.fatal, f"{node.word}: {output}"
                assert all(answer[0] == ContentType.ALERT for answer in answers), node.word
                node.is_closed = True
        assert not (was_closed and outputs), node.word
        if answers and not node.is_closed:
            assert was_taken, f"{node.word} is answered"
            assert letter in self.rules.answered, f"{node.word} is answered"


def next_number(core: DtlsEndpoint) -> int:
    return core._association._reassembler.next_sequence


def begin(dtls: SimpleNamespace, rules: Rules) -> Campaign:
    side = dtls.make_side(rules.role)
    side.endpoint.start(0.0)
    rogue = RogueClient(dtls) if rules.role is Role.SERVER else RogueServer(dtls)
    rogue.learn(False, side.drain())
    return Campaign(rules, Node(side.endpoint, rogue))


def beginnings(rules: Rules) -> list[str]:
    return [rules.legal[:length] for length in range(1, len(rules.legal) + 1)]


def is_legal(rules: Rules, word: str) -> bool:
    """Whether the word, its noise left out, is a handshake. Says it by the word alone, whatever the core did."""
    messages = rules.legal.replace("S", "")
    at = 0
    is_changed = False
    for letter in word:
        is_changed |= letter == "S" and at >= rules.changing
        at += letter == messages[at : at + 1]
    return is_changed and at == len(messages)


@pytest.mark.slow
@BOTH
def test_of_all_words_of_four_letters_none_connects(dtls: SimpleNamespace, rules: Rules) -> None:
    campaign = begin(dtls, rules)
    campaign.walk(campaign.root, 4)
    assert campaign.words == 9 + 9**2 + 9**3 + 9**4
    assert campaign.connecting == set()


@pytest.mark.slow
@BOTH
def test_behind_every_beginning_of_a_handshake_only_its_legal_end_connects(dtls: SimpleNamespace, rules: Rules) -> None:
    campaign = begin(dtls, rules)
    for prefix in beginnings(rules):
        campaign.walk(campaign.behind(prefix), 3)
    assert rules.legal in campaign.connecting
    assert [word for word in campaign.connecting if not is_legal(rules, word)] == []


@pytest.mark.soak
@pytest.mark.timeout(1800)
@BOTH
@pytest.mark.parametrize("first", range(9))
def test_of_all_words_of_six_letters_only_the_legal_ones_connect(
    dtls: SimpleNamespace, rules: Rules, first: int
) -> None:
    campaign = begin(dtls, rules)
    letter = rules.letters[first]
    (node,) = [node for name, node in zip(rules.letters, campaign.branches(campaign.root)) if name == letter]
    campaign.play(node, letter)
    campaign.walk(node, 5)
    assert campaign.words == (9**6 - 1) // 8
    assert campaign.connecting == {word for word in rules.connecting if word.startswith(letter)}


@pytest.mark.soak
@pytest.mark.timeout(1800)
@BOTH
def test_behind_every_beginning_four_letters_connect_only_as_its_legal_end(dtls: SimpleNamespace, rules: Rules) -> None:
    campaign = begin(dtls, rules)
    for prefix in beginnings(rules):
        campaign.walk(campaign.behind(prefix), 4)
    assert [word for word in campaign.connecting if not is_legal(rules, word)] == []


# The campaign can fail: cores with the faults that it looks for


def with_cell(region: Region, state: enum.Enum, event: type, cell: To) -> Region:
    """The table with one more way out of a state."""
    row = list(region.rows[state])
    row[region.events.index(event)] = cell
    return replace(region, rows={**region.rows, state: tuple(row)})


class Hasty(Server12):
    """Has its keys as soon as they can be had."""

    def _derive_keys(self, message: ClientKeyExchange, raw: HandshakeMessage) -> list[Action]:
        super()._derive_keys(message, raw)
        read, self._write_keys = self._make_keys()
        return [read]


class WithoutVerify(Hasty):
    """CVE-2022-29222."""

    region = with_cell(Server12.region, ServerState.WAIT_VERIFY, Finished, to(ServerState.DONE, server12._Step.FINISH))


class WithoutCertificate(Hasty):
    region = with_cell(
        Server12.region,
        ServerState.WAIT_CERTIFICATE,
        ClientKeyExchange,
        to(ServerState.WAIT_FINISHED, server12._Step.DERIVE),
    )


class WithoutRequest(Client12):
    region = with_cell(
        Client12.region,
        ClientState.WAIT_REQUEST,
        ServerHelloDone,
        to(ClientState.WAIT_FINISHED, client12._Step.ANSWER),
    )

    def __init__(self, parameters: Parameters) -> None:
        super().__init__(parameters)
        self._signature_scheme = SignatureScheme.ECDSA_SECP256R1_SHA256


@pytest.mark.parametrize(
    ("rules", "faulty", "prefix", "taken"),
    [
        (SERVER, WithoutVerify, "HC", "HCKF"),
        (SERVER, WithoutCertificate, "H", "HKF"),
        (CLIENT, WithoutRequest, "HCK", "HCKDF"),
    ],
)
def test_the_campaign_finds_a_core_that_does_without_a_message(
    dtls: SimpleNamespace, monkeypatch, rules: Rules, faulty: type[Handshake12], prefix: str, taken: str
) -> None:
    monkeypatch.setattr(association12, "Server12" if rules is SERVER else "Client12", faulty)
    campaign = begin(dtls, rules)
    with pytest.raises(AssertionError, match=f"connects by '{taken}'"):
        campaign.walk(campaign.behind(prefix), 3)
