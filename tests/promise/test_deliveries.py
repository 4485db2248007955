"""Deliveries in practice: late, forged, for several rooms, and many at the same time."""

import secrets
from datetime import UTC, datetime, timedelta

import pytest

from tests.promise.conftest import NewStore
from tests.promise.served import Served
from whereby_trigger.store import State
from whereby_trigger.testing import webhook

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def joined(id: str, room: str = "/visit-1", created_at: datetime = NOON) -> bytes:
    return webhook("room.client.joined", id=id, room=room, created_at=created_at).raw


def test_a_pair_that_comes_out_of_order_is_decided_in_order_of_arrival(new_store: NewStore) -> None:
    left = webhook("room.client.left", id="left", created_at=NOON, num_clients=0).raw
    with Served("stateless", new_store()) as program:
        program.send([left, joined("joined", created_at=NOON - timedelta(seconds=5))])
        first, second = program.decided(2)
    assert (first.id, first.state) == ("left", State.FIRED)
    assert (second.id, second.state) == ("joined", State.FIRED)
    assert first.decided_at is not None
    assert second.decided_at is not None
    assert first.decided_at <= second.decided_at


def test_a_forged_delivery_is_refused_and_leaves_nothing_behind(new_store: NewStore) -> None:
    with Served("stateless", new_store()) as program:
        assert [sent.status for sent in program.send([joined("forged")], secret=secrets.token_hex())] == [401]
        assert [sent.status for sent in program.send([joined("true")])] == [200]
        assert [record.id for record in program.decided(1)] == ["true"]


def test_each_of_two_rooms_fires(new_store: NewStore) -> None:
    with Served("stateless", new_store()) as program:
        program.send([joined("one", "/visit-1"), joined("two", "/visit-2")])
        records = program.decided(2)
    assert {(record.room, record.state) for record in records} == {
        ("acme.whereby.com/visit-1", State.FIRED),
        ("acme.whereby.com/visit-2", State.FIRED),
    }


def test_a_person_whose_name_was_cut_in_the_middle_of_an_emoji_fires(new_store: NewStore) -> None:
    body = webhook("room.client.joined", display_name="Zo\ud83d", id="cut").raw
    assert rb'"Zo\ud83d"' in body
    with Served("stateless", new_store()) as program:
        program.send([body])
        (record,) = program.decided(1)
    assert (record.id, record.state, record.room) == ("cut", State.FIRED, "acme.whereby.com/visit-1")
    assert record.body == body


def test_a_webhook_is_known_again_by_its_id_alone(new_store: NewStore) -> None:
    with Served("stateless", new_store()) as program:
        program.send([joined("one", "/visit-1"), joined("one", "/visit-2")])
        (record,) = program.decided(1)
    assert (record.room, record.deliveries) == ("acme.whereby.com/visit-1", 2)


@pytest.mark.parametrize("rooms", [1, 50])
def test_a_burst_of_2000_is_acknowledged_and_decided_to_the_last(rooms: int, new_store: NewStore) -> None:
    burst = [joined(f"{number:04}", f"/visit-{number % rooms}") for number in range(2000)]
    with Served("stateless", new_store()) as program:
        assert {sent.status for sent in program.send(burst, connections=100)} == {200}
        records = program.decided(len(burst))
        assert program.stop() == 0
    assert sorted(record.id for record in records) == [f"{number:04}" for number in range(2000)]
    assert {(record.state, record.attempts, record.deliveries) for record in records} == {(State.FIRED, 1, 1)}


def test_the_flag_of_the_node_quick_start_lets_one_of_four_quick_joins_fire(new_store: NewStore) -> None:
    with Served("has_joined", new_store()) as program:
        program.send([joined(f"{number}") for number in range(4)], connections=4)
        records = program.decided(4)
    assert [record.state for record in records] == [State.FIRED] + [State.SKIPPED] * 3
