"""The faults that protocol state fuzzing found in DTLS servers and clients (USENIX Security 2020, NDSS 2023).

Each pattern is a test by its name. The letters are those of dtls_rogues. All the patterns of order are among the words
of test_dtls_campaign, too; here each stands alone, with what our core does instead.
"""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from dtls_rogues import CLOSE_NOTIFY, Talk

from protocol.dtls import CookieExchange, Datagram, Role, VerifiedHello
from protocol.dtls.fragments import HandshakeMessage
from protocol.dtls.messages import ClientHello, Finished
from protocol.dtls.record12 import pack_record, split_records_untrusted
from protocol.dtls.registry import ContentType
from protocol.errors import LocalError

ADDRESS = b"\x7f\0\0\1\x12\x34"
NUMBERING = pytest.mark.parametrize("adapts", [False, True], ids=["numbered as said", "numbered as taken"])
EVERY_STATE = ["", "H", "HC", "HCK", "HCKV", "HCKVS"]


def to_server(dtls: SimpleNamespace, word: str, *, adapts: bool = False) -> Talk:
    """A server that has met a client saying this word."""
    talk = Talk(dtls, Role.SERVER, adapts=adapts)
    talk.say(word)
    return talk


def to_client(dtls: SimpleNamespace, word: str, *, adapts: bool = False) -> Talk:
    talk = Talk(dtls, Role.CLIENT, adapts=adapts)
    talk.say(word)
    return talk


def refused(talk: Talk) -> bool:
    """Not connected, and whatever comes now is delivered to nobody."""
    talk.say("A")
    return talk.side.connected is None and talk.side.received == []


def protected(talk: Talk, letter: str) -> bytes:
    """A message under the keys that should be in the clear."""
    talk.rogue.say(letter, talk.next_number)
    return talk.rogue.protected(ContentType.HANDSHAKE, talk.rogue.said.fragment(0, 5000))


def alerts(datagrams: list[bytes]) -> list[bytes]:
    """The plaintext alerts among them."""
    records = [record for data in datagrams for record in split_records_untrusted(data)[0]]
    return [record.fragment for record in records if record.content_type == ContentType.ALERT and not record.epoch]


def test_both_rogues_can_be_honest(dtls: SimpleNamespace) -> None:
    for talk in (to_server(dtls, "HCKVSFA"), to_client(dtls, "HCKQDSFA"), to_client(dtls, "RHCKQDSFA")):
        assert talk.side.connected
        assert talk.side.received == [b"data"]


# Servers


@NUMBERING
@pytest.mark.parametrize("word", ["F", "SF", "HF", "HSF", "HCSF", "HCKSF"])
def test_early_finished_is_not_answered(dtls: SimpleNamespace, word: str, adapts: bool) -> None:
    talk = to_server(dtls, word[:-1], adapts=adapts)
    assert talk.say("F") == []
    assert refused(talk)


@NUMBERING
@pytest.mark.parametrize("word", ["HCKSF", "HCKSFV", "HCKF"])
def test_client_authentication_without_certificate_verify_never_connects(
    dtls: SimpleNamespace, word: str, adapts: bool
) -> None:
    talk = to_server(dtls, word, adapts=adapts)  # CVE-2022-29222
    assert refused(talk)
    talk.side.timeout(talk.side.endpoint._association._deadline)
    assert talk.side.closed.reason == "handshake_timeout"


@NUMBERING
@pytest.mark.parametrize("word", ["HKSF", "HKVSF", "HEKSF", "HEKVSF", "CHKVSF"])
def test_client_authentication_without_certificate_never_connects(
    dtls: SimpleNamespace, word: str, adapts: bool
) -> None:
    assert refused(to_server(dtls, word, adapts=adapts))


@NUMBERING
@pytest.mark.parametrize("word", ["HKCVSF", "HKCKSF", "HCVKSF"])
def test_client_key_exchange_before_certificate_never_connects(dtls: SimpleNamespace, word: str, adapts: bool) -> None:
    assert refused(to_server(dtls, word, adapts=adapts))


@NUMBERING
@pytest.mark.parametrize("word", ["HK", "HEK", "HVK"])
def test_unauthenticated_client_key_exchange_makes_no_keys(dtls: SimpleNamespace, word: str, adapts: bool) -> None:
    talk = to_server(dtls, word, adapts=adapts)
    assert talk.next_number <= 1 or talk.side.closed
    assert talk.side.endpoint._association._handshake._schedule is None


def test_change_cipher_spec_before_certificate_verify_opens_nothing(dtls: SimpleNamespace) -> None:
    """It may have overtaken the proof, which must still come, and in the clear."""
    talk = to_server(dtls, "HCKS")
    assert talk.side.receive(protected(talk, "V")) == []
    assert talk.say("A") == []
    assert talk.next_number == 3
    talk.say("V")
    assert talk.next_number == 4
    assert talk.side.connected is None
    assert talk.say("F")
    assert talk.side.connected


def test_a_change_cipher_spec_before_its_flight_counts_for_nothing(dtls: SimpleNamespace) -> None:
    for talk in (to_server(dtls, "SHCKVFA"), to_client(dtls, "HSCKQDFA"), to_client(dtls, "HCKQSDFA")):
        assert talk.side.connected is None
        assert talk.side.endpoint.drops["change_cipher_spec"] == 1
        talk.say("S")  # the Finished was held meanwhile
        assert talk.side.connected


def test_nothing_is_decrypted_before_the_client_has_proved_its_certificate(dtls: SimpleNamespace) -> None:
    talk = to_server(dtls, "HCKSN")
    assert talk.side.closed is None
    talk.say("V")
    assert talk.side.closed.reason == "close_notify"


@NUMBERING
@pytest.mark.parametrize("word", ["HCKVF", "HCKVFS", "HCKVFA"])
def test_finished_before_change_cipher_spec_is_not_taken(dtls: SimpleNamespace, word: str, adapts: bool) -> None:
    talk = to_server(dtls, word, adapts=adapts)
    assert talk.side.connected is None
    assert talk.side.received == []
    assert talk.side.endpoint.drops["message_epoch"] == 1


def test_multiple_change_cipher_specs_begin_nothing_anew(dtls: SimpleNamespace) -> None:
    """A flight that is sent again has another one, so it is no fault; but it must not touch keys or numbers."""
    talk = to_server(dtls, "HCKSVSSF")
    assert talk.side.connected
    data = talk.rogue.say("A", 0)
    for _ in range(3):
        talk.say("S")
        assert talk.side.receive(data) == []
    assert talk.side.received == [b"data"]
    assert talk.side.endpoint.drops["record_replay"] == 2
    assert talk.side.endpoint.drops["change_cipher_spec"] == 3


@pytest.mark.parametrize("word", EVERY_STATE[1:])
def test_handshake_restarted_by_another_hello_goes_on_as_before(dtls: SimpleNamespace, word: str) -> None:
    talk = to_server(dtls, word, adapts=True)
    number, hello = talk.next_number, talk.rogue.make("H")
    for sequence in (0, number):
        other = ClientHello(hello.version, bytes(32), hello.cipher_suites, extensions=hello.extensions)
        message = HandshakeMessage(other.message_type, sequence, other.encode())
        assert talk.side.receive(pack_record(ContentType.HANDSHAKE, 50, message.fragment(0, 5000)), 1.0) == []
    assert talk.next_number == number
    talk.say("HCKVSF"[len(word) :])
    assert talk.side.connected


def test_invalid_finished_as_retransmission_is_not_answered(dtls: SimpleNamespace) -> None:
    talk = to_server(dtls, "HCKVSF")
    good = talk.rogue.said
    assert talk.side.connected
    for body in (bytes(12), good.body[:-1], good.body + b"\0", b""):
        wrong = HandshakeMessage(good.message_type, good.sequence, body).fragment(0, 100)
        assert talk.side.receive(talk.rogue.protected(ContentType.HANDSHAKE, wrong), 1.0) == []
    again = talk.rogue.protected(ContentType.HANDSHAKE, good.fragment(0, 100))
    assert talk.side.receive(again, 2.0)  # the real one is
    assert talk.side.closed is None


def listener() -> CookieExchange:
    return CookieExchange(random.Random(3).randbytes, 0.0)


def hello_with(dtls: SimpleNamespace, cookie: bytes) -> bytes:
    hello = Talk(dtls, Role.SERVER).rogue.make("H")
    hello = ClientHello(hello.version, hello.random, hello.cipher_suites, cookie=cookie, extensions=hello.extensions)
    message = HandshakeMessage(hello.message_type, 0, hello.encode())
    return pack_record(ContentType.HANDSHAKE, 0, message.fragment(0, 5000))


def cookie_of(answer: object) -> bytes:
    assert isinstance(answer, Datagram)
    fragment = split_records_untrusted(answer.data)[0][0].fragment
    length = fragment[14]
    assert len(fragment) == 15 + length
    return fragment[15:]


def test_nonconforming_cookie_is_never_sent_or_believed(dtls: SimpleNamespace) -> None:
    """Ours is of 32 bytes (RFC 6347 §4.2.1: up to 255) and nobody else's; one of another length is as good as none."""
    exchange = listener()
    cookie = cookie_of(exchange.receive_untrusted(hello_with(dtls, b""), ADDRESS, 0.0))
    assert len(cookie) == 32
    assert cookie_of(exchange.receive_untrusted(hello_with(dtls, b""), ADDRESS + b"x", 0.0)) != cookie
    for wrong in (cookie[:-1], cookie + b"\0", cookie[:1], bytes(32), bytes(255)):
        assert cookie_of(exchange.receive_untrusted(hello_with(dtls, wrong), ADDRESS, 0.0)) == cookie
    assert isinstance(exchange.receive_untrusted(hello_with(dtls, cookie), ADDRESS, 0.0), VerifiedHello)


@pytest.mark.parametrize("letter", "CEKVF")
def test_invalid_response_to_hello_verify_request_is_dropped(dtls: SimpleNamespace, letter: str) -> None:
    exchange = listener()
    cookie_of(exchange.receive_untrusted(hello_with(dtls, b""), ADDRESS, 0.0))
    assert exchange.receive_untrusted(Talk(dtls, Role.SERVER).rogue.say(letter, 1), ADDRESS, 0.0) is None
    assert exchange.drops["not_a_hello"] == 1


def test_hello_verify_request_is_sent_for_a_hello_and_never_again(dtls: SimpleNamespace) -> None:
    """It has no timer (RFC 6347 §4.2.4: not retransmitted): a hello that comes again gets it again."""
    exchange = listener()
    answers = [exchange.receive_untrusted(hello_with(dtls, b""), ADDRESS, at) for at in (0.0, 0.1, 1.0)]
    assert answers[0] == answers[1] == answers[2]
    assert not hasattr(exchange, "next_timeout")
    assert not hasattr(exchange, "handle_timeout")


@pytest.mark.parametrize("word", [*EVERY_STATE, "HCKVSF"])
def test_a_change_cipher_spec_crashes_no_state(dtls: SimpleNamespace, word: str) -> None:
    talk = to_server(dtls, word)
    for body in (b"", b"\0", b"\2", b"\1\1", bytes(100), b"\1"):
        assert talk.side.receive(pack_record(ContentType.CHANGE_CIPHER_SPEC, 60, body)) == []
        assert talk.side.receive(talk.rogue.protected(ContentType.CHANGE_CIPHER_SPEC, body)) == []
    talk.say("HCKVSF"[len(word) :])
    assert talk.side.connected
    assert talk.side.closed is None


def test_insecure_renegotiation_is_refused_once_and_changes_nothing(dtls: SimpleNamespace) -> None:
    talk = to_server(dtls, "HCKVSF")
    talk.rogue.say("H", 5)
    hello = talk.rogue.said.fragment(0, 1000)
    answers = talk.side.receive(talk.rogue.protected(ContentType.HANDSHAKE, hello), 1.0)
    assert [answer[0] for answer in answers] == [ContentType.ALERT]
    assert talk.side.receive(talk.rogue.protected(ContentType.HANDSHAKE, hello), 2.0) == []
    assert talk.side.receive(pack_record(ContentType.HANDSHAKE, 70, hello), 3.0) == []
    talk.say("A", 4.0)
    assert talk.side.received == [b"data"]
    assert talk.side.closed is None


def test_the_decrypt_error_alert_is_said_of_a_wrong_finished_and_of_nothing_else(dtls: SimpleNamespace) -> None:
    """Not of a right one, and not of what cannot be decrypted, which is dropped (RFC 6347 §4.1.2.7)."""
    talk = to_server(dtls, "HCKVS")
    sealed = bytearray(talk.rogue.protected(ContentType.HANDSHAKE, bytes(24)))
    sealed[-1] ^= 1
    assert talk.side.receive(bytes(sealed)) == []
    assert talk.side.endpoint.drops["record_mac"] == 1
    assert alerts(talk.say("F")) == []
    assert talk.side.connected
    talk = to_server(dtls, "HCKVS")
    wrong = HandshakeMessage(Finished.message_type, 4, bytes(12)).fragment(0, 100)
    assert alerts(talk.side.receive(talk.rogue.protected(ContentType.HANDSHAKE, wrong))) == [bytes((2, 51))]
    assert talk.side.closed.reason == "finished_mismatch"


@NUMBERING
@pytest.mark.parametrize("word", [state + end for state in EVERY_STATE for end in ("F", "SF", "FF", "SFSF")])
def test_a_finished_is_no_internal_error_in_any_state(dtls: SimpleNamespace, word: str, adapts: bool) -> None:
    talk = to_server(dtls, word, adapts=adapts)
    assert alerts(talk.side.sent) == []
    assert talk.side.closed is None


@NUMBERING
@pytest.mark.parametrize("letter", "CEKVSFAN")
def test_invalid_handshake_start_is_not_answered(dtls: SimpleNamespace, letter: str, adapts: bool) -> None:
    talk = to_server(dtls, letter, adapts=adapts)
    assert talk.side.sent == []
    assert talk.next_number == 0
    talk.number = 0
    talk.rogue.transcript, talk.rogue.changed = b"", False
    talk.say("HCKVSF")  # and stands in nobody's way
    assert talk.side.connected


@pytest.mark.parametrize("word", ["HCCKVSF", "HCECKVSF", "HCKCVSF", "HCKVCSF"])
def test_multiple_certificates_never_connect(dtls: SimpleNamespace, word: str) -> None:
    talk = to_server(dtls, word)
    assert refused(talk)
    assert talk.side.endpoint.drops["message_unexpected"] >= 1


@pytest.mark.parametrize("word", ["HCKVSN", "HCKVSFN"])
def test_nothing_continues_after_close_notify(dtls: SimpleNamespace, word: str) -> None:
    talk = to_server(dtls, word)
    assert (talk.side.closed.reason, talk.side.closed.by_peer) == ("close_notify", True)
    before = len(talk.side.sent), len(talk.side.events)
    talk.say("HCKVSFAN", 1.0)
    talk.side.timeout(40.0)
    assert (len(talk.side.sent), len(talk.side.events)) == before
    with pytest.raises(LocalError):
        talk.side.endpoint.send(b"x", 1.0)


@pytest.mark.parametrize("word", ["HCKVS", "HCKVSF", "HE", "HCKVS!"])
def test_nothing_continues_after_a_fatal_alert(dtls: SimpleNamespace, word: str) -> None:
    """Received under the keys, or sent. One in the clear is anybody's, so the handshake may go on in spite of it."""
    talk = to_server(dtls, word.rstrip("!"))
    if word.endswith("!"):
        wrong = HandshakeMessage(Finished.message_type, 4, bytes(12)).fragment(0, 100)
        talk.side.receive(talk.rogue.protected(ContentType.HANDSHAKE, wrong))
    elif not talk.side.closed:
        talk.side.receive(talk.rogue.protected(ContentType.ALERT, bytes((2, 80))))
    assert talk.side.closed
    before = len(talk.side.sent), len(talk.side.events)
    talk.say("HCKVSFAN", 1.0)
    talk.side.timeout(40.0)
    assert (len(talk.side.sent), len(talk.side.events)) == before


def test_a_close_in_the_clear_ends_only_a_handshake_that_then_falls_silent(dtls: SimpleNamespace) -> None:
    talk = to_server(dtls, "H")
    talk.side.receive(pack_record(ContentType.ALERT, 80, CLOSE_NOTIFY), 0.1)
    talk.say("CKVSF", 0.2)
    assert talk.side.connected
    talk = to_server(dtls, "H")
    talk.side.receive(pack_record(ContentType.ALERT, 80, CLOSE_NOTIFY), 0.1)
    while talk.side.closed is None:
        at = talk.side.endpoint.next_timeout()
        talk.side.timeout(at)
    assert talk.side.closed.reason == "alert_received"
    assert 1.0 < at < 3.0


# Clients


@NUMBERING
@pytest.mark.parametrize("word", ["HCQDSF", "HCDSF", "HKQDSF", "HKCQDSF"])
def test_key_agreement_without_server_key_exchange_or_certificate_is_not_answered(
    dtls: SimpleNamespace, word: str, adapts: bool
) -> None:
    talk = to_client(dtls, word, adapts=adapts)
    assert len(talk.side.sent) == 1  # the hello
    assert refused(talk)


@pytest.mark.parametrize("word", ["HCKQQDSF", "HCKKQDSF", "HCKQKDSF", "HCKQCDSF", "HHCKQDSF", "HCKQDDSF"])
def test_a_server_message_that_comes_twice_never_connects(dtls: SimpleNamespace, word: str) -> None:
    talk = to_client(dtls, word)
    assert refused(talk)
    assert talk.side.endpoint.drops["message_unexpected"] == 1


@NUMBERING
@pytest.mark.parametrize("word", ["HQCKDSF", "HCQKDSF", "HQKDSF"])
def test_a_certificate_request_out_of_its_place_is_not_answered(dtls: SimpleNamespace, word: str, adapts: bool) -> None:
    talk = to_client(dtls, word, adapts=adapts)
    assert len(talk.side.sent) == 1 + (talk.side.closed is not None)
    assert refused(talk)


def test_our_certificate_is_never_sent_unrequested(dtls: SimpleNamespace) -> None:
    talk = to_client(dtls, "HCKD")
    assert talk.side.closed.reason == "certificate_not_requested"
    certificate = dtls.client_identity.certificate_der
    assert not any(certificate in data for data in talk.side.sent)
    assert any(certificate in data for data in to_client(dtls, "HCKQD").side.sent)


@pytest.mark.parametrize("word", ["HC", "HCK", "HCKQ", "HCKQD"])
def test_a_server_that_starts_its_flight_anew_is_not_followed(dtls: SimpleNamespace, word: str) -> None:
    talk = to_client(dtls, word, adapts=True)
    number = talk.next_number
    sent = len(talk.side.sent)
    known, talk.rogue.server_random = talk.rogue.server_random, bytes(32)
    for letter in "HC":
        talk.side.receive(talk.rogue.say(letter, number))
    assert talk.next_number == number
    assert len(talk.side.sent) == sent
    talk.rogue.server_random = known
    talk.say("HCKQDSF"[len(word) :])
    assert talk.side.connected  # by the first
