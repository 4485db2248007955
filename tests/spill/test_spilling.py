"""What the database does not accept waits on a disk, in order, and is in the database once it is back."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.spill.conftest import LONG, Open, Spilling
from tests.support.arrivals import NOW, arrival
from tests.support.counts import at, count, counted, people, presence
from tests.support.outage import AwayStore
from tests.support.rooms import bring_to
from tests.support.until import eventually
from whereby_trigger.errors import StoreError, StoreUnavailable
from whereby_trigger.store import Added, Arrival, Bounds, Presence, RoomState, SessionChange, State
from whereby_trigger.store import spill as spill_module
from whereby_trigger.store.spill_file import read_content

pytestmark = pytest.mark.anyio


async def add(one: Spilling, *ids: str) -> list[Added]:
    return await asyncio.gather(*(one.spill.add(arrival(id)) for id in ids))


async def test_a_database_that_is_there_gets_each_delivery_itself(one: Spilling) -> None:
    (added,) = await add(one, "a")
    assert (added.spilled, added.duplicate, added.state) == (False, False, State.PENDING)
    assert (await add(one, "a"))[0].duplicate
    assert await one.ids() == ["a"]
    assert one.spill.length == 0


async def test_what_is_added_at_once_after_the_start_is_sent_once(one: Spilling) -> None:
    await add(one, "a", "b")
    assert one.store.asked == ["a", "b"]


async def test_what_a_database_that_is_down_refuses_is_on_the_disk_when_it_is_answered(one: Spilling) -> None:
    one.store.go_down()
    (added,) = await add(one, "a")
    assert added == Added(0, False, State.PENDING, spilled=True)
    assert read_content(one.path).waiting == 1
    assert await one.ids() == []


@pytest.mark.usefixtures("impatience")
async def test_what_a_silent_database_does_not_answer_in_time_is_spilled(one: Spilling) -> None:
    one.store.fall_silent()
    assert [added.spilled for added in await add(one, "a", "b", "c")] == [True] * 3
    assert one.spill.length == 3


@pytest.mark.usefixtures("impatience")
async def test_once_one_was_spilled_the_next_ask_a_silent_database_no_more(
    one: Spilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.store.fall_silent()
    await add(one, "a")
    monkeypatch.setattr("whereby_trigger.store.spill.SPILL_AFTER", LONG)
    assert [added.spilled for added in await add(one, "b", "c")] == [True] * 2
    assert not {"b", "c"} & set(one.store.asked)


async def test_a_database_that_is_back_has_all_of_it_in_order_and_gets_the_next_itself(one: Spilling) -> None:
    await add(one, "before")
    one.store.go_down()
    spilled = [f"{n}" for n in range(1200)]
    assert all(added.spilled for added in await add(one, *spilled))
    one.store.come_back()
    await one.drained()
    (added,) = await add(one, "after")
    assert not added.spilled
    assert await one.ids() == ["before", *spilled, "after"]
    assert one.unread.moves


async def test_a_spill_is_emptied_even_if_the_log_failed_when_the_database_went_away(
    one: Spilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service that a handler of the log sends to may be away together with the database."""
    handler, fail = logging.Handler(), Mock(side_effect=ConnectionError("the log's service is away"))
    with monkeypatch.context() as away:
        away.setattr(handler, "emit", fail)
        away.setattr(spill_module.logger, "handlers", [handler])
        one.store.go_down()
        await add(one, "a", "b")
        await eventually(lambda: fail.called)
    one.store.come_back()
    await one.drained()
    assert await one.ids() == ["a", "b"]


async def test_a_database_that_was_joined_late_is_joined_once_even_if_the_log_fails_later(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, handler = await opened(lambda one: one.store.go_down()), logging.Handler()
    joined, join = list[str](), one.store.open

    async def count(changed: Callable[[], None] | None = None) -> None:
        await join(changed)
        joined.append(one.store.replica)

    monkeypatch.setattr(one.store, "open", count)
    await add(one, "a")
    one.store.come_back()
    await one.drained()
    with monkeypatch.context() as away:
        fail = Mock(side_effect=ConnectionError("the log's service is away"))
        away.setattr(handler, "emit", fail)
        away.setattr(spill_module.logger, "handlers", [handler])
        one.store.go_down()
        await add(one, "b")
        await eventually(lambda: fail.called)
        one.store.come_back()
        await one.drained()
    await add(one, "c")
    assert await one.ids() == ["a", "b", "c"]
    assert len(joined) == 1


async def test_what_arrives_while_it_drains_joins_the_tail(one: Spilling) -> None:
    one.store.go_down()
    await add(one, *(f"{n}" for n in range(600)))
    one.store.come_back()
    adding = []
    for n in range(600, 900):
        adding.append(asyncio.ensure_future(one.spill.add(arrival(f"{n}"))))
        await asyncio.sleep(0)
    await asyncio.gather(*adding)
    await one.drained()
    assert await one.ids() == [f"{n}" for n in range(900)]


async def test_a_drain_comes_to_its_end_under_a_load_that_never_ends(one: Spilling) -> None:
    async def deliver(name: str) -> int:
        number = 0
        while not ended.is_set():
            number += 1
            await one.spill.add(arrival(f"{name}-{number}"))
        return number

    ended = asyncio.Event()
    one.store.go_down()
    senders = [asyncio.create_task(deliver(f"{n}")) for n in range(10)]
    await eventually(lambda: one.spill.length > 50)
    one.store.come_back()
    await eventually(lambda: one.spill.length == 0 and one.spill.settled)
    ended.set()
    sent = await asyncio.gather(*senders)
    await one.drained()
    ids = await one.ids()
    assert len(ids) == sum(sent)
    for n in range(10):
        ours = [id for id in ids if id.startswith(f"{n}-")]
        assert ours == [f"{n}-{number + 1}" for number in range(sent[n])]


async def test_those_before_the_one_that_is_refused_go_before_it_into_the_spill(
    one: Spilling,
) -> None:
    one.store.fall_silent()
    unanswered = asyncio.gather(*(one.spill.add(arrival(id)) for id in "ab"))
    refused = one.spill.add(arrival("c"))
    one.store.go_down()
    assert [added.spilled for added in (*await unanswered, await refused)] == [True] * 3
    one.store.come_back()
    await one.drained()
    assert await one.ids() == ["a", "b", "c"]


@pytest.mark.usefixtures("impatience")
async def test_what_the_database_stored_although_it_did_not_answer_in_time_is_there_once(one: Spilling) -> None:
    await one.store.add(arrival("a"))
    one.store.fall_silent()
    assert [added.spilled for added in await add(one, "a", "b")] == [True] * 2
    one.store.come_back()
    await one.drained()
    assert [(record.id, record.deliveries) for record in await one.records()] == [("a", 2), ("b", 1)]


async def test_duplicates_in_the_spill_are_one_row_that_counts_them(one: Spilling) -> None:
    one.store.go_down()
    await add(one, "a", "b", "a", "a")
    one.store.come_back()
    await one.drained()
    assert [(record.id, record.deliveries) for record in await one.records()] == [("a", 3), ("b", 1)]


async def test_everything_of_a_delivery_is_kept(one: Spilling) -> None:
    one.store.go_down()
    odd = Arrival("\x00é😀", "a type", None, b"\x00\xff", NOW + 0.125, State.QUARANTINED, "because")
    ended = Arrival("b", "room.session.ended", "r", b"{}", NOW, change=SessionChange("r", False, None, NOW))
    assert (await one.spill.add(odd)).state is State.QUARANTINED
    await one.spill.add(ended)
    read = await one.spill_file.head()
    assert [spooled.arrival for spooled in read] == [odd, ended]


async def test_what_it_says_of_a_session_takes_effect_when_it_is_in_the_database(one: Spilling) -> None:
    room = await bring_to(one.store, RoomState.LIVE, session_id="s")
    one.store.go_down()
    change = SessionChange(room.key, False, "s", None)
    await one.spill.add(Arrival("a", "room.session.ended", room.key, b"{}", NOW, change=change))
    one.store.come_back()
    await one.drained()
    (stopping,) = await one.store.stopping()
    assert stopping.id == room.id


async def test_no_room_counts_as_empty_while_a_delivery_waits_that_may_say_that_somebody_came(one: Spilling) -> None:
    at_once = Bounds(1e-6, None)
    for key in ("acme.whereby.com/a", "acme.whereby.com/b"):
        await bring_to(one.store, RoomState.LIVE, key=key)
        await people(one.store, 0, key)
    one.lose_the_lease()
    one.store.go_down()
    assert (await one.spill.add(counted("back", count(1e6, 1, room="acme.whereby.com/a")))).spilled
    one.store.come_back()
    assert await one.spill.stopping(at_once) == []
    one.renew_the_lease()
    await one.drained()
    assert [room.key for room in await one.spill.stopping(at_once)] == ["acme.whereby.com/b"]


async def test_a_replica_without_its_lease_hands_nothing_over_until_it_has_one(one: Spilling) -> None:
    one.lose_the_lease()
    one.store.go_down()
    await add(one, "a")
    one.store.come_back()
    await one.spill.settle(5)
    assert (await add(one, "b"))[0].spilled
    assert one.store.asked == ["a"]
    one.renew_the_lease()
    await one.drained()
    assert await one.ids() == ["a", "b"]


async def test_what_is_left_at_the_close_is_handed_over_after_the_next_start(
    opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "whereby_trigger")
    one = await opened()
    one.store.go_down()
    await add(one, "a", "b")
    await one.spill.close()
    assert f"deliveries that stay in the spill {one.path} until the next start: 2" in caplog.text
    other = await opened()
    assert f"deliveries of an earlier run that wait in the spill {one.path}: 2" in caplog.text
    await other.drained()
    assert await other.ids() == ["a", "b"]
    await eventually(lambda: "the database is available again, and has stored the spilled deliveries: 2" in caplog.text)


async def test_after_a_restart_nothing_overtakes_what_was_left(opened: Open) -> None:
    one = await opened()
    one.store.go_down()
    await add(one, "a", "b")
    await one.spill.close()
    other = await opened()
    await add(other, "c")
    await other.drained()
    assert await other.ids() == ["a", "b", "c"]


async def test_a_start_with_the_database_down_takes_deliveries_and_joins_it_when_it_is_back(opened: Open) -> None:
    one = await opened(lambda one: one.store.go_down())
    assert [added.spilled for added in await add(one, "a", "b")] == [True] * 2
    one.store.come_back()
    await one.drained()
    assert not (await add(one, "c"))[0].spilled
    assert await one.ids() == ["a", "b", "c"]


@pytest.mark.usefixtures("impatience")
async def test_a_start_waits_for_a_silent_database_only_for_so_long(opened: Open) -> None:
    one = await opened(lambda one: one.store.fall_silent())
    assert (await add(one, "a"))[0].spilled
    one.store.come_back()
    await one.drained()
    assert await one.ids() == ["a"]


async def test_a_database_that_cannot_be_used_at_all_fails_the_start_and_lets_go_of_the_file(opened: Open) -> None:
    def misplaced(one: Spilling) -> None:
        one.store.path = one.path.parent / "no" / "folder" / "webhooks.db"

    with pytest.raises(StoreError, match="does not exist"):
        await opened(misplaced)
    assert await (await opened()).ids() == []


async def test_an_outage_is_said_once_with_its_reason_and_its_end_once(
    one: Spilling, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "whereby_trigger.spill")
    one.store.go_down()
    for id in "abc":
        await add(one, id)
        await one.spill.settle(5)
    one.store.come_back()
    await one.drained()
    await eventually(lambda: len(caplog.messages) == 2)
    assert caplog.messages == [
        f"deliveries go into the spill {one.path}: the database is unavailable: it is down",
        "the database is available again, and has stored the spilled deliveries: 3",
    ]


async def test_deliveries_are_taken_while_either_takes_them(one: Spilling) -> None:
    await one.spill.ping(NOW)
    one.store.go_down()
    await one.spill.ping(NOW)
    one.store.fall_silent()
    await one.spill.ping(NOW)
    await one.spill_file.close()
    with pytest.raises(StoreUnavailable, match="spill is closed"):
        await one.spill.ping(NOW)
    one.store.come_back()
    await one.spill.ping(NOW)


async def test_what_neither_takes_is_unavailable_and_says_of_both(one: Spilling) -> None:
    await one.spill_file.close()
    one.store.go_down()
    with pytest.raises(StoreUnavailable, match="the database does not take it, and the spill is closed"):
        await add(one, "a")


async def test_the_database_is_tried_again_where_the_spill_took_nothing(one: Spilling) -> None:
    await one.spill_file.close()
    one.store.go_down()
    with pytest.raises(StoreUnavailable):
        await add(one, "a")
    one.store.come_back()
    await one.spill.settle(5)
    await eventually(lambda: one.spill.length == 0)
    assert not (await add(one, "a"))[0].spilled


async def test_who_was_in_a_room_by_what_waited_on_the_disk_is_known_once_the_database_has_it(one: Spilling) -> None:
    one.store.go_down()
    await one.spill.add(counted("a", count(5, 2, 1, session_id="s")))
    await one.spill.add(counted("b", count(0, 9)))
    one.store.come_back()
    await one.drained()
    assert await presence(one.spill) == Presence(2, 1, at(5), at(5), "s")


async def test_what_the_database_has_is_in_no_file_of_the_spill(one: Spilling) -> None:
    one.store.go_down()
    await asyncio.gather(*(one.spill.add(arrival(f"w{n}", body=b"mark-name")) for n in range(50)))
    files = [one.path, one.path.with_name(one.path.name + "-wal")]
    assert any(b"mark-name" in file.read_bytes() for file in files)
    one.store.come_back()
    await one.drained()
    await eventually(lambda: not any(b"mark-name" in file.read_bytes() for file in files))


async def test_a_spill_whose_file_was_away_as_it_became_empty_serves_the_next_outage(one: Spilling) -> None:
    elsewhere = one.path.with_name("elsewhere")
    one.store.go_down()
    await add(one, "a")
    one.path.rename(elsewhere)
    one.store.come_back()
    await one.drained()
    elsewhere.rename(one.path)
    one.store.go_down()
    assert [added.spilled for added in await add(one, "b")] == [True]
    one.store.come_back()
    await one.drained()
    assert await one.ids() == ["a", "b"]


async def test_a_spill_whose_close_is_cancelled_lets_go_of_its_file_and_of_the_store(
    tmp_path: Path, opened: Open
) -> None:
    leaving = Spilling(tmp_path)
    await leaving.spill.open()
    closing = asyncio.ensure_future(leaving.spill.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait({closing})
    assert closing.cancelled()
    assert leaving.store.life is None
    await opened()


async def test_a_start_that_is_given_up_as_the_database_answers_leaves_no_store_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Spilling(tmp_path)

    async def open_and_give_up(changed: Callable[[], None] | None = None) -> None:
        await AwayStore.open(one.store, changed)
        starting.cancel()

    monkeypatch.setattr(one.store, "open", open_and_give_up)
    starting = asyncio.ensure_future(one.spill.open())
    await asyncio.wait({starting})
    assert starting.cancelled()
    assert one.store.life is None
