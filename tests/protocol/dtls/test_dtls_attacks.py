"""What a hostile or broken peer, or somebody beside the path, may try; each test names the fault it comes from."""

from __future__ import annotations

import itertools
import random
import tracemalloc
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from dtls_rogues import RogueClient, Talk

from protocol.dtls import Fingerprint, Role
from protocol.dtls.fragments import HandshakeMessage, parse_fragments_untrusted
from protocol.dtls.messages import CertificateRequest, CertificateVerify, ClientKeyExchange, Finished, Message
from protocol.dtls.record12 import pack_record, split_records_untrusted
from protocol.dtls.registry import ContentType, HandshakeType
from protocol.dtls.signatures import sign
from protocol.errors import LocalError


def clear(message_type: int, sequence: int, body: bytes = b"", *, total: int | None = None, offset: int = 0) -> bytes:
    """A plaintext record with one handshake fragment."""
    length = len(body) if total is None else total
    header = bytes((message_type,)) + length.to_bytes(3, "big") + sequence.to_bytes(2, "big")
    header += offset.to_bytes(3, "big") + len(body).to_bytes(3, "big")
    return pack_record(ContentType.HANDSHAKE, 1000 + sequence, header + body)


def plain_alert(level: int, description: int) -> bytes:
    return pack_record(ContentType.ALERT, 77, bytes((level, description)))


def server_flight(dtls: SimpleNamespace):
    """A client that has said hello, and the bodies of what the server answers."""
    client, server = dtls.make_pair()
    answers = [answer for data in client.drain() for answer in server.receive(data)]
    records = [record for answer in answers for record in split_records_untrusted(answer)[0]]
    fragments = [fragment for record in records for fragment in parse_fragments_untrusted(record.fragment)]
    return client, [(fragment.message_type, fragment.body) for fragment in fragments]


@pytest.mark.parametrize(
    ("index", "at", "alert", "reason"),
    [
        (0, 1, 70, "protocol_version"),
        (1, 60, 42, "fingerprint_mismatch"),
        (2, 0, 50, "curve_type"),
        (2, 2, 47, "group"),
        (2, 10, 51, "signature"),
        (2, 37, 47, "signature_scheme"),
        (2, -1, 51, "signature"),
        (4, None, 50, "trailing_bytes"),
    ],
)
def test_a_tampered_server_flight_is_refused(
    dtls: SimpleNamespace, index: int, at: int | None, alert: int, reason: str
) -> None:
    client, messages = server_flight(dtls)
    for sequence, (kind, body) in enumerate(messages):
        changed = bytearray(body)
        if sequence == index and at is None:
            changed += b"x"
        elif sequence == index:
            changed[at] ^= 0x40
        client.receive(clear(kind, sequence, bytes(changed)))
    assert (client.closed.reason, client.closed.alert) == (reason, alert)
    assert client.connected is None


def test_a_certificate_of_another_kind_than_the_suite_says_is_refused(dtls: SimpleNamespace) -> None:
    client, messages = server_flight(dtls)
    (kind, hello), (other_kind, certificate) = messages[:2]
    rsa = hello.replace(b"\0\xc0\x2b\0", b"\0\xc0\x2f\0")  # RSA chosen, with an elliptic key
    assert rsa != hello
    client.receive(clear(kind, 0, rsa))
    client.receive(clear(other_kind, 1, certificate))
    assert (client.closed.reason, client.closed.alert) == ("certificate_of_another_suite", 43)


@pytest.mark.parametrize(
    "wanted",
    [
        CertificateRequest((64,), (0x0401, 0x0804, 0x0807)),  # nothing that a P-256 key can sign with
        CertificateRequest((1,), (0x0403,)),  # RSA certificates only
    ],
    ids=["schemes", "types"],
)
def test_a_server_that_wants_a_certificate_that_we_do_not_have_is_told_so(
    dtls: SimpleNamespace, wanted: CertificateRequest
) -> None:
    client, messages = server_flight(dtls)
    messages[3] = (HandshakeType.CERTIFICATE_REQUEST, wanted.encode())
    for sequence, (kind, body) in enumerate(messages):
        client.receive(clear(kind, sequence, body))
    assert (client.closed.reason, client.closed.alert) == ("no_common_signature_scheme", 40)


def test_a_server_that_wants_no_certificate_is_not_served(dtls: SimpleNamespace) -> None:
    client, messages = server_flight(dtls)
    answers = [
        client.receive(clear(messages[index][0], at, messages[index][1])) for at, index in enumerate((0, 1, 2, 4))
    ]
    assert [len(answer) for answer in answers] == [0, 0, 0, 1]
    assert answers[3][0][0] == ContentType.ALERT
    assert (client.closed.reason, client.closed.alert) == ("certificate_not_requested", 40)


def test_more_than_two_cookies_are_refused(dtls: SimpleNamespace) -> None:
    client = dtls.make_side(Role.CLIENT)
    client.endpoint.start(0.0)
    hellos = client.drain()
    for sequence in range(2):
        hellos += client.receive(clear(3, sequence, b"\xfe\xff\x06cookie"))
    assert len(hellos) == 3
    assert b"\x06cookie" in hellos[2]
    client.receive(clear(3, 2, b"\xfe\xff\x06cookie"))
    assert client.closed.reason == "too_many_cookies"


class Impostor(RogueClient):
    """Has the certificate but not its key, or a wrong idea of the transcript."""

    fault = ""

    def make(self, letter: str) -> Message:
        if letter == "V" and self.fault == "key":
            return CertificateVerify(0x0403, sign(dtls_other_key(), 0x0403, self.transcript))
        if letter == "V" and self.fault == "replay":
            return CertificateVerify(0x0403, sign(self.identity.private_key, 0x0403, b"other"))
        if letter == "V" and self.fault == "scheme":
            return CertificateVerify(0x0203, b"sha1")
        if letter == "K" and self.fault == "share":
            return ClientKeyExchange(bytes(32))
        return super().make(letter)

    def finished(self, is_client: bool) -> Finished:
        return Finished(bytes(12)) if self.fault == "finished" else super().finished(is_client)


def dtls_other_key():
    return ec.derive_private_key(12345, ec.SECP256R1())


@pytest.mark.parametrize(
    ("fault", "alert", "reason"),
    [
        ("key", 51, "signature"),
        ("replay", 51, "signature"),
        ("scheme", 47, "signature_scheme"),
        ("share", 47, "key_share"),
        ("finished", 51, "finished_mismatch"),
    ],
)
def test_an_impostor_is_refused(dtls: SimpleNamespace, fault: str, alert: int, reason: str) -> None:
    talk = Talk(dtls, Role.SERVER)
    talk.rogue = Impostor(dtls)
    talk.rogue.fault = fault
    talk.say("HCKVSF")
    assert (talk.side.closed.reason, talk.side.closed.alert) == (reason, alert)
    assert talk.side.connected is None


def test_data_before_the_handshake_is_done_is_delivered_to_nobody(dtls: SimpleNamespace) -> None:
    for word, delivered in (("HCKVSA", []), ("HCKVSAF", [b"data"])):  # held, then delivered
        talk = Talk(dtls, Role.SERVER)
        talk.say(word)
        assert talk.side.received == delivered


# Certificates and fingerprints (ex_webrtc GHSA-qwfw-ggxw-577c, licode#2047)


@pytest.mark.parametrize("liar", [Role.CLIENT, Role.SERVER])
def test_another_certificate_than_signalled_never_connects(dtls: SimpleNamespace, liar: Role) -> None:
    other = (Fingerprint.of(b"another certificate"),)
    client, server = dtls.make_pair(**{"server_peer" if liar is Role.CLIENT else "client_peer": other})
    dtls.run(client, server)
    judge, judged = (server, client) if liar is Role.CLIENT else (client, server)
    assert (judge.closed.reason, judge.closed.alert, judge.closed.by_peer) == ("fingerprint_mismatch", 42, False)
    assert (judged.closed.reason, judged.closed.alert, judged.closed.by_peer) == ("alert_received", 42, True)
    assert judge.connected is None
    assert judged.connected is None


def test_the_fingerprint_is_judged_even_if_the_last_flight_has_to_be_sent_again(dtls: SimpleNamespace) -> None:
    client, server = dtls.make_pair(server_peer=(Fingerprint.of(b"another"),))
    dtls.run(client, server, lambda way, count, _: [] if way == 1 and count > 0 else [0.001], until=40)
    assert server.connected is None
    assert client.connected is None


def test_no_fingerprint_at_all_means_nobody(dtls: SimpleNamespace) -> None:
    client, server = dtls.make_pair(server_peer=())
    dtls.run(client, server)
    assert server.closed.reason == "fingerprint_mismatch"


def test_our_own_certificate_is_not_the_peers(dtls: SimpleNamespace) -> None:
    client, server = dtls.make_pair(server_peer=(dtls.server_identity.fingerprint(),))
    dtls.run(client, server)
    assert server.closed.reason == "fingerprint_mismatch"


def test_any_of_several_signalled_fingerprints_will_do(dtls: SimpleNamespace) -> None:
    peers = (Fingerprint.of(b"x"), dtls.client_identity.fingerprint("sha-512"))
    client, server = dtls.connect(server_peer=peers)
    assert client.connected
    assert server.connected


# Fragments (CVE-2022-29189, CVE-2022-29190, the split hello of browsers)


def test_great_promises_reserve_nothing_and_the_handshake_goes_on(dtls: SimpleNamespace) -> None:
    client, server = dtls.make_pair()
    hello = client.drain()
    tracemalloc.start()
    try:
        for number in range(800):
            server.receive(clear(number % 20, number % 12, b"x", total=0xFFFFFF, offset=number))
            server.receive(clear(11, 1 + number % 11, b"x", total=30_000, offset=number))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
    for data in hello:
        server.endpoint.receive_untrusted(data, 0.0)
    dtls.run(client, server)
    assert client.connected
    assert server.connected
    assert sum(server.endpoint.drops.values()) >= 800


def test_empty_fragments_do_no_harm(dtls: SimpleNamespace) -> None:
    client, server = dtls.make_pair()
    for number in range(2000):
        server.receive(clear(1, 0, b"", total=100 + number % 7, offset=50))
        server.receive(clear(14, number % 9, b"", total=0))
    dtls.run(client, server)
    assert client.connected
    assert server.connected


def test_a_forged_first_fragment_does_not_wedge_the_handshake(dtls: SimpleNamespace) -> None:
    client, server = dtls.make_pair()
    server.receive(clear(1, 0, b"forged", total=999))
    server.receive(clear(11, 0, b"forged", total=50))
    dtls.run(client, server)
    assert client.connected
    assert server.connected


@pytest.mark.parametrize("order", ["forwards", "backwards", "shuffled"])
@pytest.mark.parametrize("lose_first", [False, True])
def test_a_hello_in_pieces_of_one_byte_is_understood(dtls: SimpleNamespace, order: str, lose_first: bool) -> None:
    client, server = dtls.make_pair()
    record = split_records_untrusted(client.drain()[0])[0][0]
    message = parse_fragments_untrusted(record.fragment)[0]
    pieces = [clear(1, 0, message.body[at : at + 1], total=message.length, offset=at) for at in range(message.length)]
    if order == "backwards":
        pieces.reverse()
    if order == "shuffled":
        random.Random(3).shuffle(pieces)
    kept = pieces[1:] if lose_first else pieces
    answers = [answer for piece in kept for answer in server.receive(piece)]
    if lose_first:
        assert not answers
        answers = server.receive(pieces[0])
    assert answers
    for data in answers:
        client.endpoint.receive_untrusted(data, 0.0)
    dtls.run(client, server)
    assert client.connected
    assert server.connected


# Somebody beside the path (RFC 6347 §4.1.2.7, §4.2.8)


def forgeries(dtls: SimpleNamespace) -> list[bytes]:
    hello = dtls.make_side(Role.CLIENT, seed=99)
    hello.endpoint.start(0.0)
    return [
        *hello.drain(),
        plain_alert(2, 40),
        plain_alert(1, 0),
        plain_alert(2, 0),
        pack_record(ContentType.ALERT, 1 << 48 | 9, bytes(26)),
        pack_record(ContentType.CHANGE_CIPHER_SPEC, 5, b"\1"),
        pack_record(ContentType.CHANGE_CIPHER_SPEC, 5, b"\2"),
        pack_record(ContentType.APPLICATION_DATA, 5, b"plain"),
        pack_record(ContentType.APPLICATION_DATA, 1 << 48 | 50, bytes(60)),
        pack_record(ContentType.APPLICATION_DATA, 2 << 48 | 50, bytes(60)),
        pack_record(ContentType.HANDSHAKE, (1 << 64) - 1, bytes(60)),
        clear(HandshakeType.FINISHED, 6, bytes(12)),
        clear(HandshakeType.HELLO_REQUEST, 0),
        b"\x16",
        b"\x17\xfe\xfd" + bytes(8) + b"\xff\xff" + bytes(100),
        bytes(2000),
    ]


def test_forgeries_do_not_end_an_established_association(dtls: SimpleNamespace) -> None:
    client, server = dtls.connect()
    for side in (client, server):
        before = len(side.events)
        for data in forgeries(dtls):
            assert side.receive(data, 5.0) == []
        assert len(side.events) == before
        assert sum(side.endpoint.drops.values()) >= 15
    client.endpoint.send(b"still here", 6.0)
    server.endpoint.send(b"me too", 6.0)
    dtls.run(client, server, now=6.0)
    assert server.received == [b"still here"]
    assert client.received == [b"me too"]


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("step", range(3))
@pytest.mark.parametrize("one_way", [0.02, 0.4])
def test_forged_alerts_during_the_handshake_do_not_end_it(
    dtls: SimpleNamespace, victim: int, step: int, one_way: float
) -> None:
    client, server = dtls.make_pair()

    def fate(way: int, count: int, _data: bytes) -> list[float]:
        if count == step:
            (client, server)[victim].endpoint.receive_untrusted(plain_alert(2, 40), 0.0)
        return [one_way]

    dtls.run(client, server, fate)
    assert client.connected
    assert server.connected


def test_a_real_alert_in_the_clear_is_believed_after_silence(dtls: SimpleNamespace) -> None:
    client = dtls.make_side(Role.CLIENT)
    client.endpoint.start(0.0)
    client.drain()
    client.receive(plain_alert(2, 71), 0.01)
    while client.closed is None:
        at = client.endpoint.next_timeout()
        client.timeout(at)
    assert (client.closed.reason, client.closed.alert, client.closed.by_peer) == ("alert_received", 71, True)
    assert 1.0 < at < 2.0


def test_a_forged_record_does_not_move_the_replay_window(dtls: SimpleNamespace) -> None:
    client, server = dtls.connect()
    server.receive(pack_record(ContentType.APPLICATION_DATA, 1 << 48 | 1 << 40, bytes(60)))
    client.endpoint.send(b"hello", 1.0)
    for data in client.drain():
        server.receive(data, 1.0)
    assert server.received == [b"hello"]


def test_no_bit_of_a_protected_record_can_be_changed(dtls: SimpleNamespace) -> None:
    client, server = dtls.connect()
    client.endpoint.send(b"x", 1.0)
    (data,) = client.drain()
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        assert server.receive(bytes(changed), 1.0) == []
    assert server.received == []
    assert server.closed is None
    server.receive(data, 1.0)
    assert server.received == [b"x"]


# The end


def sealed(side, content_type: int, payload: bytes) -> bytes:
    """A record under the keys of a connected side that this side would never say."""
    return side.endpoint._association._epochs.seal(content_type, payload)


@pytest.mark.parametrize("sequence", [0, 6, 40_000])
def test_a_server_that_wants_to_renegotiate_is_refused_once_and_the_association_lives(
    dtls: SimpleNamespace, sequence: int
) -> None:
    client, server = dtls.connect()
    hello_request = HandshakeMessage(HandshakeType.HELLO_REQUEST, sequence, b"").fragment(0, 0)
    (answer,) = client.receive(sealed(server, ContentType.HANDSHAKE, hello_request), 1.0)
    assert client.receive(sealed(server, ContentType.HANDSHAKE, hello_request), 2.0) == []
    (record,), _ = split_records_untrusted(answer)
    assert (record.content_type, record.epoch) == (ContentType.ALERT, 1)
    assert server.receive(answer, 2.0) == []  # a warning: nothing comes of it
    before = client.connected.srtp
    client.endpoint.send(b"still here", 3.0)
    dtls.run(client, server, now=3.0)
    assert server.received == [b"still here"]
    assert (client.closed, server.closed) == (None, None)
    assert client.connected.srtp is before
    assert len(client.of(type(client.connected))) == 1


@pytest.mark.parametrize("payload", [b"\1\x64", b"\1\x5a", b"\1\x29", b"\3\x28", b"\2", b"\2\x28\0", b""])
def test_warnings_and_malformed_alerts_under_the_keys_end_nothing(dtls: SimpleNamespace, payload: bytes) -> None:
    client, server = dtls.connect()
    assert client.receive(sealed(server, ContentType.ALERT, payload), 1.0) == []
    assert client.closed is None
    assert client.endpoint.is_connected


@pytest.mark.parametrize("description", [10, 20, 40, 51, 80, 255])
def test_a_fatal_alert_under_the_keys_ends_the_association_at_once(dtls: SimpleNamespace, description: int) -> None:
    client, server = dtls.connect()
    assert client.receive(sealed(server, ContentType.ALERT, bytes((2, description))), 1.0) == []
    assert (client.closed.reason, client.closed.alert, client.closed.by_peer) == ("alert_received", description, True)
    client.receive(sealed(server, ContentType.APPLICATION_DATA, b"after the end"), 1.0)
    assert client.received == []


def test_after_close_notify_nothing_is_taken_or_said(dtls: SimpleNamespace) -> None:
    client, server = dtls.connect()
    client.endpoint.send(b"late", 1.0)
    late = client.drain()
    client.endpoint.close(1.0)
    for data in client.drain():
        assert server.receive(data, 1.0)  # answered in kind
    assert (server.closed.reason, server.closed.alert, server.closed.by_peer) == ("close_notify", 0, True)
    assert (client.closed.reason, client.closed.by_peer) == ("local_close", False)
    for data in late:
        assert server.receive(data, 1.0) == []
    assert server.received == []
    for side in (client, server):
        assert side.endpoint.next_timeout() == float("inf")
        side.endpoint.close(2.0)
        side.endpoint.handle_timeout(2.0)
        assert side.drain() == []
        assert len(side.of(type(side.closed))) == 1
        with pytest.raises(LocalError):
            side.endpoint.send(b"x", 2.0)
        with pytest.raises(LocalError):
            side.endpoint.export_keying_material(b"l", None, 1)


@pytest.mark.parametrize("closer", [0, 1])
def test_a_close_during_the_handshake_ends_both_sides(dtls: SimpleNamespace, closer: int) -> None:
    sides = dtls.make_pair()
    client, server = sides
    for data in client.drain():
        server.endpoint.receive_untrusted(data, 0.0)
    sides[closer].endpoint.close(0.0)
    dtls.run(client, server)
    assert sides[closer].closed.reason == "local_close"
    assert sides[1 - closer].closed.reason == "alert_received"


def test_random_bytes_never_raise_in_any_state(dtls: SimpleNamespace) -> None:
    chance = random.Random(8)
    client, server = dtls.make_pair()
    recorded = [*client.drain()]
    for data in recorded:
        recorded = [*recorded, *server.receive(data)]
    sides = [*dtls.make_pair(), client, server, *dtls.connect()]
    for side, _ in itertools.product(sides, range(400)):
        data = bytearray(chance.choice(recorded))
        for _ in range(chance.randrange(4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        side.receive(bytes(data[: chance.randrange(len(data) + 1)]), 1.0)
        side.receive(chance.randbytes(chance.randrange(80)), 1.0)
        side.receive(bytes((22, 254, 253)) + chance.randbytes(chance.randrange(80)), 1.0)
