"""What a run passes on to its session: every later webhook once, in whatever order they are committed."""

import pytest

from whereby_trigger.assist.runners import Run
from whereby_trigger.store import Room, RoomState
from whereby_trigger.testing import webhook

BEGINNING = 10


def run() -> Run:
    room = Room(
        id=1,
        key="acme.whereby.com/visit-1",
        url="https://acme.whereby.com/visit-1",
        state=RoomState.STARTING,
        owner="a replica",
        webhook=None,
        attempt=1,
        restarts=0,
        pid=None,
        stop=None,
        reason="",
        queued_at=0,
        since=0,
        seq=BEGINNING,
    )
    return Run(room)


def heard_of(run: Run, *seqs: int) -> list[str]:
    """Deliver webhooks whose ids are their numbers; return the ids that the session then holds."""
    for seq in seqs:
        run.deliver(seq, webhook("room.client.joined", id=str(seq)).raw)
    return [held.id for held in run.session._unread]


def test_a_webhook_that_is_read_again_is_heard_once() -> None:
    assert heard_of(run(), 11, 12, 11, 12, 13) == ["11", "12", "13"]


def test_what_came_up_to_the_beginning_is_not_heard() -> None:
    assert heard_of(run(), 8, BEGINNING, 11) == ["11"]


def test_a_lower_number_that_comes_after_a_higher_one_is_heard_too() -> None:
    one = run()
    heard_of(one, 12, 14)
    one.advance(BEGINNING)
    assert heard_of(one, 11, 12, 13, 14) == ["12", "14", "11", "13"]


def test_however_low_the_store_says_to_read_on_from_nothing_is_heard_twice_and_nothing_from_before() -> None:
    one = run()
    for cursor, read, heard in [(3, 12, ["12"]), (12, 12, ["12"]), (5, 12, ["12"]), (5, 13, ["12", "13"])]:
        one.advance(cursor)
        assert heard_of(one, 4, BEGINNING, read) == heard


def test_what_can_no_more_be_read_again_is_not_remembered() -> None:
    one = run()
    heard_of(one, *range(11, 111))
    one.advance(100)
    assert one._seen == set(range(101, 111))
    assert one.cursor == 100


def test_a_webhook_for_which_there_was_no_memory_is_heard_when_it_is_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = run()
    with monkeypatch.context() as patch:
        patch.setattr("whereby_trigger.assist.runners.decode", out_of_memory)
        with pytest.raises(MemoryError):
            heard_of(one, 11)
    assert heard_of(one, 11, 11, 12) == ["11", "12"]


def out_of_memory(body: bytes) -> None:
    raise MemoryError


def test_a_webhook_that_cannot_be_decoded_is_passed_over() -> None:
    one = run()
    one.deliver(11, b"{")
    assert heard_of(one, 12) == ["12"]
