"""Deliveries may come twice and out of order; the decisions equal those on the same deliveries once and in order."""

import random

from tests.promise.conftest import NewStore
from tests.promise.corpus import corpus
from tests.promise.served import Served
from whereby_trigger.store import Record, State


def fates(records: list[Record]) -> dict[str, tuple[str, str | None, State, str, int]]:
    return {record.id: (record.type, record.room, record.state, record.reason, record.attempts) for record in records}


def test_the_corpus_is_the_same_every_time_and_has_more_than_200_deliveries() -> None:
    bodies = corpus()
    assert bodies == corpus()
    assert len(set(bodies)) == len(bodies) > 200


def test_twice_over_and_shuffled_gives_the_decisions_of_once_in_order(new_store: NewStore) -> None:
    bodies = corpus()
    twice = bodies * 2
    random.Random(23).shuffle(twice)
    with Served("stateless", new_store()) as one, Served("stateless", new_store()) as other:
        assert {sent.status for sent in one.send(bodies)} == {200}
        assert {sent.status for sent in other.send(twice, connections=16)} == {200}
        once, again = one.decided(len(bodies)), other.decided(len(bodies))
    assert fates(once) == fates(again)
    assert {record.deliveries for record in once} == {1}
    assert {record.deliveries for record in again} == {2}
    assert {record.state for record in once} == set(State) - {State.PENDING, State.HELD}
