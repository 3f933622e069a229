"""How flows come to be, move, and end: a relay in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from protocol.address import pack_address
from protocol.stun import Class
from relay.flows import Proposal
from relay.index import flow_words

if TYPE_CHECKING:
    from tests.relay.conftest import Bench

MakeBench = Callable[..., "Bench"]


def test_a_check_reaches_the_transceiver_that_its_token_names(bench: Bench):
    check = bench.check(bench.token(bench.B))
    assert bench.up(check, ingress=1) == [(bench.B, (bench.CLIENT, 1, check))]


def test_a_reply_leaves_by_the_address_that_the_client_spoke_to(bench: Bench):
    bench.up(bench.check(bench.token()), ingress=1)
    assert bench.down(b"answer", ingress=1) == [(1, b"answer", bench.CLIENT)]


def test_media_passes_only_after_the_transceiver_has_answered(bench: Bench):
    check = bench.check(bench.token())
    assert bench.targets(bench.DTLS, check, bench.DTLS, bench.RTP) == [bench.A]
    assert bench.core.drops == {"no_flow": 1, "probationary": 2}
    bench.down(bench.answer())
    assert bench.targets(bench.DTLS, bench.RTP, check) == [bench.A] * 3


def test_an_error_answer_establishes_nothing(bench: Bench):
    bench.up(bench.check(bench.token()))
    assert bench.down(bench.answer(Class.ERROR)) != []
    assert bench.targets(bench.DTLS) == []
    bench.restart()
    bench.down(bench.answer(Class.ERROR))
    assert bench.size == 0


def test_the_same_client_on_another_ingress_is_another_flow(bench: Bench):
    bench.establish()
    assert bench.targets(bench.RTP, ingress=1) == []


def test_order_within_a_flow_is_kept_and_one_batch_shares_datagrams(bench: Bench):
    bench.establish()
    other = pack_address("198.51.100.8", 40002)
    bench.establish(bench.B, other)
    batch = [(memoryview(bench.RTP[:2] + bytes([n])), bench.CLIENT if n % 3 else other) for n in range(30)]
    sent = bench.core.receive_clients_untrusted(batch, 0, bench.now)
    assert sorted(to for _, to in sent) == [bench.A, bench.B]
    for data, to in sent:
        numbers = [frame.payload[2] for frame in bench.trunk.decode_untrusted(data)]
        assert numbers == [n for n in range(30) if bool(n % 3) == (to == bench.A)]


# ---- a flow moves only on proof


def test_an_established_flow_is_not_re_pointed_before_the_other_transceiver_has_answered(bench: Bench):
    bench.establish(bench.A)
    foreign = bench.check(bench.token(bench.B))
    assert bench.targets(foreign, bench.RTP, bench.DTLS) == [bench.B, bench.A, bench.A]
    bench.down(bench.answer(Class.ERROR), bench.B)
    assert bench.targets(bench.RTP) == [bench.A]
    bench.down(bench.answer(), bench.B)
    assert bench.targets(bench.RTP, foreign) == [bench.B, bench.B]
    assert bench.core.moved == 1


@pytest.mark.parametrize("talk", [b"\x80voice", b"\x81\xc8report", b"\x17data"], ids=["RTP", "RTCP", "data"])
def test_a_call_that_talks_is_not_re_pointed_by_a_forged_check_that_another_transceiver_answers(
    bench: Bench, talk: bytes
):
    """Who had a call at B had cut off any other call whose address he knew, until its next check, and again and again."""
    bench.establish(bench.A)
    for _ in range(10):
        bench.down(talk, bench.A)
        bench.pass_time(6.2)
        bench.up(bench.check(bench.token(bench.B)))
        bench.down(bench.answer(), bench.B)
        assert bench.targets(bench.RTP) == [bench.A]
    assert bench.core.not_learned["flow_talking"] == 10


@pytest.mark.parametrize(
    ("last_word", "wait"), [(b"\x15goodbye", 0.0), (b"\x80voice", 7.0)], ids=["goodbye", "silence"]
)
def test_a_call_that_has_ended_leaves_its_address_to_the_next_one(bench: Bench, last_word: bytes, wait: float):
    bench.establish(bench.A)
    bench.down(b"\x80voice", bench.A)
    bench.down(last_word, bench.A)
    bench.pass_time(wait)
    bench.up(bench.check(bench.token(bench.B)))
    bench.down(bench.answer(), bench.B)
    assert bench.targets(bench.RTP) == [bench.B]


def test_a_handshake_alone_holds_no_address(bench: Bench):
    """Else who forges a check and a hello would keep the address from the one whose it is."""
    bench.establish(bench.B)
    bench.down(b"\x16flight", bench.B)
    bench.up(bench.check(bench.token(bench.A)))
    bench.down(bench.answer(), bench.A)
    assert bench.targets(bench.RTP) == [bench.A]


def test_a_late_answer_to_a_proposal_that_ran_out_moves_nothing(bench: Bench):
    bench.establish(bench.A)
    bench.up(bench.check(bench.token(bench.B)))
    bench.now += 11
    bench.down(bench.answer(), bench.B)
    assert bench.targets(bench.RTP) == [bench.A]


def test_a_transceiver_that_nobody_named_can_not_take_an_established_flow(bench: Bench):
    bench.establish(bench.A)
    assert bench.down(b"\x80stray", bench.B) != []
    assert bench.targets(bench.RTP) == [bench.A]


def test_another_call_of_the_same_transceiver_and_a_restart_of_ice_pass_at_once(bench: Bench):
    bench.establish()
    again = bench.check(bench.token())
    assert bench.targets(again, bench.RTP, again) == [bench.A] * 3


def test_answers_of_the_client_to_our_checks_follow_the_flow(bench: Bench):
    assert bench.targets(bench.answer()) == []
    bench.up(bench.check(bench.token()))
    assert bench.targets(bench.answer()) == [bench.A]
    bench.down(bench.answer())
    assert bench.targets(bench.answer(), bench.answer(Class.INDICATION)) == [bench.A] * 2


def test_no_proposal_blocks_another(bench: Bench):
    """A spoofed check with a good token of its own must not lock the owner of the address out."""
    bench.up(bench.check(bench.token(bench.B)))
    assert bench.targets(bench.check(bench.token(bench.A))) == [bench.A]
    bench.down(bench.answer(), bench.A)
    assert bench.targets(bench.DTLS) == [bench.A]


# ---- learning again


def test_a_restarted_relay_learns_a_talking_call_from_its_first_reply(bench: Bench):
    bench.establish()
    bench.restart()
    assert bench.targets(bench.RTP) == []
    assert bench.down(b"\x80voice") == [(0, b"\x80voice", bench.CLIENT)]
    assert bench.targets(bench.RTP) == [bench.A]
    assert bench.core.learned == 1


def test_with_learning_off_replies_still_arrive_and_the_next_check_repairs_the_flow(make_bench: MakeBench):
    bench = make_bench(learn_from_replies=False)
    token = bench.establish()
    bench.restart(learn_from_replies=False)
    assert bench.down(b"\x80voice") == [(0, b"\x80voice", bench.CLIENT)]
    assert bench.targets(bench.RTP) == []
    bench.pass_time(2.65)
    assert bench.targets(bench.check(token)) == [bench.A]
    bench.down(bench.answer())
    assert bench.targets(bench.RTP) == [bench.A]


def test_a_call_older_than_its_token_goes_on_after_it_was_learned_from_a_reply(bench: Bench):
    token = bench.establish()
    bench.restart()
    bench.wall += 6 * 3600
    assert bench.targets(bench.check(token)) == []
    assert bench.core.drops == {"token_stale": 1}
    bench.down(b"\x80voice")
    assert bench.targets(bench.check(token), bench.RTP) == [bench.A, bench.A]


def test_a_clock_that_jumps_ends_no_established_flow(bench: Bench):
    token = bench.establish()
    for jump in (7200.0, -7200.0 * 3):
        bench.wall += jump
        assert bench.targets(bench.check(token), bench.RTP) == [bench.A, bench.A]


# ---- bounds and ends


def test_a_probationary_flow_has_a_byte_budget(make_bench: MakeBench):
    bench = make_bench(probationary_bytes=1000)
    check = bench.check(bench.token(), padding=100)
    passed = len(bench.targets(*[check] * 20))
    assert passed == 1000 // len(check)
    assert bench.core.drops == {"probationary_budget": 20 - passed}
    bench.down(bench.answer())
    assert len(bench.targets(*[check] * 20)) == 20


def test_an_unanswered_proposal_beside_an_established_flow_has_the_same_budget(make_bench: MakeBench):
    bench = make_bench(probationary_bytes=1000)
    bench.establish(bench.A)
    check = bench.check(bench.token(bench.B), padding=100)
    assert len(bench.targets(*[check] * 20)) == 1000 // len(check)
    assert bench.targets(bench.RTP) == [bench.A]


def test_a_probationary_flow_lapses_soon_and_an_established_one_when_idle(bench: Bench):
    bench.establish()
    bench.up(bench.check(bench.token()), client=pack_address("198.51.100.9", 1))
    assert (bench.core.flows.established, bench.core.flows.probationary) == (1, 1)
    bench.pass_time(11)
    assert (bench.core.flows.established, bench.core.flows.probationary) == (1, 0)
    bench.pass_time(121)
    assert bench.size == 0
    assert bench.core.next_timeout() == float("inf")
    assert (bench.core.flows.lapsed, bench.core.flows.expired) == (1, 1)


def test_what_its_transceiver_sends_keeps_a_flow(bench: Bench):
    bench.establish()
    for _ in range(5):
        bench.pass_time(100)
        bench.down(b"\x80voice")
    assert bench.targets(bench.RTP) == [bench.A]


def test_in_a_full_table_flows_of_calls_that_must_be_over_make_room_and_no_others(make_bench: MakeBench):
    bench = make_bench(max_flows=3)
    clients = [pack_address("198.51.100.20", port) for port in range(1, 6)]
    for client in clients[:3]:
        bench.establish(client=client)
        bench.pass_time(10)
    for _ in range(3):
        bench.pass_time(8)
        bench.down(bench.answer(), client=clients[1])
        assert bench.targets(b"\x80", client=clients[0]) == [bench.A]  # which does not help it
    assert bench.targets(bench.check(bench.token()), client=clients[3]) == [bench.A]
    bench.down(bench.answer(), client=clients[3])
    reached = [bench.targets(bench.RTP, client=client) for client in clients[:4]]
    assert reached == [[], [bench.A], [bench.A], [bench.A]]
    assert bench.core.flows.evicted == 1


@pytest.mark.parametrize("kind", ["media", "checks", "checks under new names", "answers"])
def test_a_client_that_goes_on_when_its_call_is_over_holds_no_place(bench: Bench, kind: str):
    """Or who starts calls and ends them could fill the table with flows at the price of a byte in two minutes each."""
    token = bench.establish()
    for _ in range(3):
        bench.pass_time(35)
        match kind:
            case "media":
                data = bench.RTP
            case "checks":
                data = bench.check(token)
            case "answers":
                data = bench.answer()
            case _:
                data = bench.check(bench.token())
        assert bench.targets(data) == [bench.A]
    bench.pass_time(20)
    assert bench.size == 0


def test_spoofed_addresses_with_one_good_token_crowd_out_only_each_other(make_bench: MakeBench):
    bench = make_bench(max_probationary=100)
    bench.establish()
    other = pack_address("203.0.113.2", 1)
    bench.up(bench.check(bench.token()), client=other)
    check = bench.check(bench.token())
    for n in range(1000):
        bench.up(check, client=pack_address("203.0.113.1", 1000 + n))
    assert (bench.core.flows.established, bench.core.flows.probationary) == (1, 1 + 16)
    bench.down(bench.answer(), client=other)
    assert bench.core.flows.established == 2


def test_spoofed_addresses_with_many_good_tokens_crowd_out_only_what_nobody_answered(make_bench: MakeBench):
    bench = make_bench(max_probationary=100, stun_per_second=1e6)
    bench.establish()
    for n in range(1000):
        bench.up(bench.check(bench.token()), client=pack_address("203.0.113.1", 1000 + n))
    assert (bench.core.flows.established, bench.core.flows.probationary) == (1, 100)
    assert bench.core.flows.evicted == 900
    newcomer = pack_address("198.51.100.99", 9)
    bench.establish(client=newcomer)
    assert bench.targets(bench.RTP, client=newcomer) == [bench.A]
    assert bench.targets(bench.RTP) == [bench.A]


def test_who_has_a_call_of_his_own_cannot_fill_the_table_with_it(bench: Bench):
    """His checks are authentic and answered, from however many ports he sends them, at once or one after another."""
    token = bench.establish()
    check = bench.check(bench.token())
    ports = [pack_address("203.0.113.1", 1000 + n) for n in range(300)]
    for client in ports[:200]:
        bench.up(check, client=client)
        bench.down(bench.answer(), client=client)
        bench.now += 0.001
    for client in ports[200:]:
        bench.up(check, client=client)
    for client in ports:
        bench.down(bench.answer(), client=client)
    assert (bench.core.flows.established, bench.core.flows.probationary) == (1 + 16, 0)
    assert bench.targets(bench.RTP) == [bench.A]
    assert bench.targets(bench.RTP, client=ports[-1]) == [bench.A]  # the newest of his own addresses are those kept
    assert bench.up(bench.RTP, client=ports[0]) == []
    for n in range(40):  # nor by calling himself another's call on each of them
        bench.up(bench.check(token), client=ports[-1])
        bench.up(check, client=pack_address("203.0.113.9", 1 + n))
        bench.down(bench.answer(), client=pack_address("203.0.113.9", 1 + n))
    assert bench.core.flows.established <= 1 + 16 + 1


def test_the_index_of_tokens_is_empty_when_the_table_is(bench: Bench):
    bench.establish()
    for n in range(50):
        client = pack_address("203.0.113.1", 1 + n)
        token = bench.token(bench.A if n % 2 else bench.B)
        bench.up(bench.check(token), client=client)
        if n % 3:
            bench.down(bench.answer(), bench.A, client)
        bench.up(bench.check(bench.token()), client=client)
    bench.pass_time(11)
    bench.pass_time(121)
    assert bench.size == 0
    assert bench.core.flows.tokens == 0


def test_a_full_table_takes_nobody_new_and_harms_nobody_in_it(make_bench: MakeBench):
    bench = make_bench(max_flows=2)
    second, third = (pack_address("198.51.100.20", port) for port in (2, 3))
    bench.establish()
    bench.establish(client=second)
    assert bench.targets(bench.check(bench.token()), client=third) == []
    assert bench.down(b"\x80voice", client=third) != []
    assert bench.size == 2
    assert bench.core.drops == bench.core.not_learned == {"table_full": 1}
    assert bench.targets(bench.RTP) == bench.targets(bench.RTP, client=second) == [bench.A]
    bench.pass_time(121)
    bench.establish(client=third)


def test_a_probationary_flow_that_finds_the_table_full_stays_probationary(make_bench: MakeBench):
    bench = make_bench(max_flows=1)
    late = pack_address("198.51.100.20", 2)
    bench.up(bench.check(bench.token()), client=late)
    bench.establish()
    bench.down(bench.answer(), client=late)
    assert bench.targets(bench.RTP, client=late) == []
    assert (bench.core.flows.established, bench.core.flows.probationary) == (1, 1)


def test_a_large_table_is_swept_in_slices(make_bench: MakeBench):
    bench = make_bench()
    for port in range(1, 10001):
        bench.core.flows.learn(flow_words(pack_address("192.0.2.1", port), 0), bench.A, bench.now)
    bench.now += 121
    steps = 0
    while bench.core.next_timeout() <= bench.now:
        bench.core.handle_timeout(bench.now)
        steps += 1
    assert bench.size == 0
    assert steps == 3


def test_a_flow_that_made_room_during_a_sweep_is_not_forgotten_twice(make_bench: MakeBench):
    bench = make_bench()
    for n in range(16):
        bench.establish(client=pack_address("198.51.100.9", 1 + n))
    for port in range(1, 10001):
        bench.core.flows.learn(flow_words(pack_address("192.0.2.1", port), 0), bench.A, bench.now)
    for _ in range(3):  # a whole sweep that finds nothing
        bench.core.handle_timeout(bench.now)
    table = bench.core.flows
    proposal = Proposal(bench.A, 1, table.digest(b"token"), 1000, bench.now + 10.0)
    last, newest, *kin = (flow_words(pack_address("198.51.100.10", 1 + n), 0) for n in range(17))
    for words in (last, *kin):
        table.establish(table.open(words, proposal, bench.now), bench.A, bench.now)
    bench.now += 121
    bench.core.handle_timeout(bench.now)  # the first slice
    assert table.find_words(last)
    table.establish(table.open(newest, proposal, bench.now), bench.A, bench.now)
    assert table.evicted == 1
    while bench.core.next_timeout() <= bench.now:
        bench.core.handle_timeout(bench.now)
    assert table.find_words(newest)
    assert table.established == 1
