"""An address translator that changes its mind."""

from __future__ import annotations

import itertools
import math

import pytest

from udpio import Nat


def new_nat(**options) -> Nat[str, int]:
    ports = itertools.count(5000)
    return Nat(lambda: next(ports), **options)


def test_an_inner_address_keeps_its_outer_one_and_answers_find_back():
    nat = new_nat()
    assert [nat.outward("a", 0.0), nat.outward("b", 0.0), nat.outward("a", 99.0)] == [5000, 5001, 5000]
    assert (nat.inward(5000), nat.inward(5001)) == ("a", "b")
    assert nat.next_timeout() == math.inf


def test_after_a_rebinding_the_old_outer_address_is_dead():
    given_up: list[int] = []
    nat = new_nat(retired=given_up.append)
    nat.outward("a", 0.0)
    assert nat.rebind("a", 1.0) == nat.outward("a", 1.0) == 5001
    assert (nat.inward(5000), nat.inward(5001)) == (None, "a")
    assert (nat.rebindings, nat.unmapped, given_up) == (1, 1, [5000])


def test_mappings_are_replaced_each_after_its_own_time():
    nat = new_nat(rebind_every=10.0)
    nat.outward("a", 0.0)
    nat.outward("b", 4.0)
    assert nat.next_timeout() == 10.0
    nat.handle_timeout(9.9)
    assert nat.rebindings == 0
    nat.handle_timeout(10.0)
    assert (nat.outward("a", 10.0), nat.outward("b", 10.0), nat.next_timeout()) == (5002, 5001, 14.0)
    nat.handle_timeout(14.0)
    assert nat.next_timeout() == 20.0


def test_who_is_forgotten_begins_anew():
    given_up: list[int] = []
    nat = new_nat(retired=given_up.append)
    nat.outward("a", 0.0)
    nat.forget("a")
    nat.forget("a")
    assert given_up == [5000]
    assert nat.outward("a", 0.0) == 5001


def test_a_full_table_gives_up_its_oldest_mapping():
    nat = new_nat(max_mappings=2)
    for inner in ("a", "b", "c"):
        nat.outward(inner, 0.0)
    assert (nat.inward(5000), nat.inward(5001), nat.inward(5002)) == (None, "b", "c")
    assert nat.evicted == 1


def test_a_period_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="rebind_every"):
        new_nat(rebind_every=0.0)
