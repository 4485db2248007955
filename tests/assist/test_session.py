"""The session: the room, who is in it by the last counts, what happens there, and when it is over."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import pytest

from whereby_trigger import Presence, RoomClientJoined, Webhook
from whereby_trigger.assist import Session
from whereby_trigger.assist.session import UNREAD
from whereby_trigger.testing import webhook
from whereby_trigger.webhook import room_from_url

pytestmark = pytest.mark.anyio

START = datetime(2026, 7, 1, 12, tzinfo=UTC)
URL = "https://acme.whereby.com/visit-1"


def session_of(fired: Webhook | None, attempt: int = 1) -> Session:
    return Session(room_from_url(URL), fired, attempt)


def count(visitors: int, *, at: float, bots: int = 0, type: str = "room.client.joined") -> Webhook:
    """Return a count of a room, `at` seconds after its start."""
    roles = {"visitor": visitors, "assistant": bots}
    return webhook(
        type, created_at=START + timedelta(seconds=at), num_clients=visitors + bots, num_clients_by_role_name=roles
    )


async def gathered(session: Session) -> list[Webhook]:
    return [heard async for heard in session.webhooks()]


# The room


def test_a_session_knows_its_room_and_what_fired() -> None:
    fired = webhook("room.client.joined")
    session = session_of(fired, attempt=3)
    assert (session.room_url, session.room_name, session.subdomain) == (URL, "/visit-1", "acme")
    assert (session.webhook, session.attempt) == (fired, 3)


def test_the_log_of_a_session_names_the_room(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "whereby_trigger.assistant"):
        session_of(None).log.info("joined after %d s", 3)
    assert caplog.messages == ["[acme.whereby.com/visit-1] joined after 3 s"]


# Who is there


def test_without_a_count_it_is_unknown_who_is_there() -> None:
    assert session_of(None).humans is None
    assert session_of(webhook("room.session.started")).humans is None


def test_the_webhook_that_fired_counts() -> None:
    assert session_of(count(3, at=0)).humans == 3


def test_bots_are_not_counted() -> None:
    assert session_of(count(2, at=0, bots=3)).humans == 2
    assert session_of(count(0, at=0, bots=1, type="room.client.left")).humans == 0


def test_the_last_count_holds() -> None:
    session = session_of(count(1, at=0))
    session.deliver(count(2, at=1))
    assert session.humans == 2
    session.deliver(count(0, at=2, type="room.client.left"))
    assert session.humans == 0


def test_a_count_that_comes_late_changes_nothing() -> None:
    session = session_of(count(1, at=0))
    session.deliver(count(0, at=5, type="room.client.left"))
    session.deliver(count(2, at=1))
    assert session.humans == 0


def test_of_counts_of_the_same_time_the_one_that_came_last_holds() -> None:
    session = session_of(count(1, at=0))
    session.deliver(count(2, at=0))
    assert session.humans == 2


def test_a_webhook_without_a_count_leaves_the_last_one() -> None:
    session = session_of(count(1, at=0))
    session.deliver(webhook("room.client.knocked"))
    assert session.humans == 1


def test_who_is_there_at_first_is_what_the_store_knows() -> None:
    stored = Presence(3, 1, START, START + timedelta(seconds=9), "s")
    session = Session(room_from_url(URL), count(1, at=0), 1, stored)
    assert (session.presence, session.humans) == (stored, 3)
    session.deliver(count(1, at=5))
    assert session.humans == 3
    session.deliver(count(2, at=10, bots=1))
    assert session.presence == Presence(
        2, 1, START + timedelta(seconds=10), START + timedelta(seconds=10), session.presence.session_id
    )


def test_since_when_people_are_there_stays_while_bots_come_and_go() -> None:
    session = session_of(count(2, at=0))
    session.deliver(count(2, at=7, bots=1))
    assert session.presence.humans_since == START
    assert session.presence.changed_at == START + timedelta(seconds=7)


# What happens there


def numbered(count: int) -> list[Webhook]:
    return [webhook("room.client.knocked", id=f"{number}") for number in range(count)]


async def test_of_webhooks_that_nobody_reads_the_newest_are_kept_and_the_rest_counted_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "whereby_trigger.assistant")
    session, all_of_them = session_of(None), numbered(UNREAD + 250)
    for each in all_of_them[:UNREAD]:
        session.deliver(each)
    assert (session.missed, caplog.messages) == (0, [])
    for each in all_of_them[UNREAD:]:
        session.deliver(each)
    assert session.missed == 250
    (message,) = caplog.messages
    assert message.startswith("[acme.whereby.com/visit-1] ")
    assert f"{UNREAD:,}" in message
    assert caplog.records[0].levelno == logging.INFO
    session.ended.set("over")
    assert await gathered(session) == all_of_them[250:]


async def test_who_reads_too_slowly_is_warned_and_reads_on_with_the_oldest_that_is_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    session, all_of_them = session_of(None), numbered(UNREAD + 2)
    session.deliver(all_of_them[0])
    heard = session.webhooks()
    assert await anext(heard) == all_of_them[0]
    for each in all_of_them[1:]:
        session.deliver(each)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert (await anext(heard), session.missed) == (all_of_them[2], 1)


async def test_who_reads_as_they_come_misses_nothing_however_many_there_are() -> None:
    session = session_of(None)
    heard = session.webhooks()
    for each in numbered(3 * UNREAD):
        session.deliver(each)
        assert await anext(heard) == each
    assert session.missed == 0


def test_what_is_not_kept_is_counted_all_the_same() -> None:
    session = session_of(count(1, at=0))
    session.deliver(count(5, at=1))
    for each in numbered(2 * UNREAD):
        session.deliver(each)
    assert session.humans == 5


async def test_webhooks_are_given_in_the_order_in_which_they_were_heard() -> None:
    session = session_of(None)
    heard = [webhook("room.client.joined", id=str(n)) for n in range(3)]
    for one in heard:
        session.deliver(one)
    session.ended.set("over")
    assert await gathered(session) == heard


async def test_webhooks_wait_for_the_next_one() -> None:
    session = session_of(None)
    gathering = asyncio.create_task(gathered(session))
    for n in range(3):
        await turn()
        session.deliver(webhook("room.client.joined", id=str(n)))
    await turn()
    assert not gathering.done()
    session.ended.set("over")
    assert [heard.id for heard in await gathering] == ["0", "1", "2"]


async def test_webhooks_end_when_the_session_has_ended_though_nothing_was_heard() -> None:
    session = session_of(None)
    gathering = asyncio.create_task(gathered(session))
    await turn()
    session.ended.set("over")
    assert await asyncio.wait_for(gathering, 5) == []
    assert await asyncio.wait_for(gathered(session), 5) == []


async def test_what_a_cancelled_wait_for_webhooks_did_not_get_the_next_one_gets() -> None:
    session = session_of(None)
    given_up = asyncio.create_task(gathered(session))
    await turn()
    given_up.cancel()
    await asyncio.wait({given_up})
    session.deliver(webhook("room.client.joined", id="a"))
    session.ended.set("over")
    assert [heard.id for heard in await asyncio.wait_for(gathered(session), 5)] == ["a"]


async def test_a_loop_over_webhooks_that_is_left_leaves_the_rest_to_the_next() -> None:
    session = session_of(None)
    for n in range(3):
        session.deliver(webhook("room.client.joined", id=str(n)))
    async for heard in session.webhooks():
        assert isinstance(heard, RoomClientJoined)
        break
    session.ended.set("over")
    assert [heard.id for heard in await gathered(session)] == ["1", "2"]


async def test_waiting_for_webhooks_leaves_no_task_behind() -> None:
    before = asyncio.all_tasks()
    gathering = asyncio.create_task(gathered(session_of(None)))
    await turn()
    gathering.cancel()
    await asyncio.wait({gathering})
    assert asyncio.all_tasks() == before


# Its end


async def test_the_end_of_a_session_is_awaited_and_says_why() -> None:
    session = session_of(None)
    assert (session.ended.is_set(), session.ended.reason) == (False, "")
    waiting = [asyncio.ensure_future(session.ended.wait()) for _ in range(2)]
    await turn()
    session.ended.set("the session has ended")
    assert await asyncio.gather(*waiting) == ["the session has ended"] * 2
    assert await session.ended == "the session has ended"
    assert session.ended.is_set()


async def test_the_first_reason_for_an_end_stands() -> None:
    session = session_of(None)
    session.ended.set("first")
    session.ended.set("second")
    assert await session.ended == "first"


async def turn() -> None:
    """Run every task that can run."""
    for _ in range(5):
        await asyncio.sleep(0)
