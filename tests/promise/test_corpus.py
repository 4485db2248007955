"""Deliveries may come twice and out of order, and the decisions are those on the same deliveries once, in order."""

import random
from pathlib import Path

from tests.promise.corpus import corpus
from tests.promise.served import Served
from whereby_trigger.store import Record, State


def fates(records: list[Record]) -> dict[str, tuple[str, str | None, State, str, int]]:
    return {record.id: (record.type, record.room, record.state, record.reason, record.attempts) for record in records}


def test_the_corpus_is_the_same_every_time_and_has_more_than_200_deliveries() -> None:
    bodies = corpus()
    assert bodies == corpus()
    assert len(set(bodies)) == len(bodies) > 200


def test_twice_over_and_shuffled_gives_the_decisions_of_once_in_order(tmp_path: Path) -> None:
    bodies = corpus()
    twice = bodies * 2
    random.Random(23).shuffle(twice)
    in_order, shuffled = tmp_path / "in-order", tmp_path / "shuffled"
    in_order.mkdir()
    shuffled.mkdir()
    with Served("stateless", in_order) as one, Served("stateless", shuffled) as other:
        assert {sent.status for sent in one.send(bodies)} == {200}
        assert {sent.status for sent in other.send(twice, connections=16)} == {200}
        once, again = one.decided(len(bodies)), other.decided(len(bodies))
    assert fates(once) == fates(again)
    assert {record.deliveries for record in once} == {1}
    assert {record.deliveries for record in again} == {2}
    assert {record.state for record in once} == set(State) - {State.PENDING}
