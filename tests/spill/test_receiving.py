"""A trigger whose database goes away: deliveries are still answered 200, and decided when it is back."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

import pytest

from tests.spill.conftest import LONG
from tests.support.asgi import Upload, call, post
from tests.support.http import Answer, ask, request
from tests.support.outage import AwayStore
from tests.support.receiver import Receiver
from tests.support.stored import records_in
from tests.support.until import eventually
from whereby_trigger import RoomClientJoined, Trigger
from whereby_trigger.clock import boot_time
from whereby_trigger.store import Presence, Record, State
from whereby_trigger.store.spill_file import SpillFile
from whereby_trigger.testing import webhook
from whereby_trigger.testing.clock import MovableClock

pytestmark = pytest.mark.anyio


class Outage:
    """Serve a trigger with a spill in front of a store that can be away, for an `async with` block."""

    def __init__(self, folder: Path, asked: list[str], *, down: bool = False, **settings: Any) -> None:
        async def note(webhook: object) -> bool:
            asked.append(getattr(webhook, "id", ""))
            return True

        trigger = Trigger(webhook_triggers={"room.client.joined": note})
        self.spill_file = SpillFile(f"sqlite:///{folder}/spill.db")
        self.receiver = Receiver(folder, trigger, AwayStore, self.spill_file, **settings)
        assert isinstance(self.receiver.store, AwayStore)
        self.store = self.receiver.store
        if down:
            self.store.go_down()

    async def deliver(self, id: str, room: str = "/visit-1") -> None:
        assert (await post(self.receiver.edge, webhook("room.client.joined", id=id, room=room).raw)).status == 200

    async def readyz(self, method: str = "GET") -> Answer:
        answer = await call(self.receiver.edge, Upload(), method=method, path="/readyz")
        assert answer is not None
        return answer

    async def records(self) -> list[Record]:
        return await records_in(self.receiver.settings.store)

    async def decided(self, *ids: str) -> dict[str, Record]:
        """Wait until these are decided, and return their records."""

        async def look() -> dict[str, Record]:
            records = {record.id: record for record in await self.records() if record.id in ids}
            done = len(records) == len(ids) and all(record.state is not State.PENDING for record in records.values())
            return records if done else {}

        found: dict[str, Record] = await eventually(look)
        return found

    async def __aenter__(self) -> "Outage":
        await self.receiver.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.receiver.__aexit__(None, None, None)


@pytest.fixture
def asked() -> list[str]:
    """Return the list of ids that the predicate was asked about, in order."""
    return []


@pytest.fixture(autouse=True)
def nothing_is_found_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whereby_trigger.decide.dispatcher.REREAD", LONG)


@pytest.fixture
async def outage(tmp_path: Path, asked: list[str]) -> AsyncIterator[Outage]:
    async with Outage(tmp_path, asked) as outage:
        yield outage


async def test_what_was_delivered_while_it_was_away_is_decided_in_order_at_once_when_it_is_back(
    outage: Outage, asked: list[str]
) -> None:
    await outage.deliver("before")
    outage.store.go_down()
    ids = [f"{n}" for n in range(30)]
    for id in ids:
        await outage.deliver(id)
    outage.store.come_back()
    await outage.deliver("after")
    records = await outage.decided("before", *ids, "after")
    assert asked == ["before", *ids, "after"]
    assert {record.state for record in records.values()} == {State.FIRED}
    assert {record.attempts for record in records.values()} == {1}


class Waits(MovableClock):
    """Note that somebody waits for `AGAIN` seconds."""

    AGAIN = 0.01

    def __init__(self) -> None:
        super().__init__()
        self.waited = False

    async def sleep(self, seconds: float) -> None:
        self.waited = self.waited or seconds == self.AGAIN
        await super().sleep(seconds)


async def test_a_hold_that_came_due_in_an_outage_is_asked_again_with_what_the_spill_says_of_its_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The spill is read again once the lease is renewed: the hold is asked again before that.
    monkeypatch.setattr("whereby_trigger.store.spill.SHORTEST_PAUSE", LONG)
    monkeypatch.setattr("whereby_trigger.store.spill.LONGEST_PAUSE", LONG)
    monkeypatch.setattr("whereby_trigger.decide.decider.READ_AGAIN", Waits.AGAIN)
    trigger, clock, spill_file = Trigger(), Waits(), SpillFile(f"sqlite:///{tmp_path}/spill.db")
    present: list[int | None] = []

    @trigger.when("room.client.joined", hold=60)
    def somebody(webhook: RoomClientJoined, presence: Presence) -> bool:
        present.append(presence.humans)
        return presence.humans == 1

    async with Receiver(tmp_path, trigger, AwayStore, spill_file, clock) as receiver:

        async def is_in(states: Collection[State]) -> bool:
            return any(one.id == "joined" and one.state in states for one in await receiver.records())

        store = receiver.store
        assert isinstance(store, AwayStore)
        joined = webhook("room.client.joined", id="joined", room="/visit-1", num_clients=1)
        assert (await post(receiver.edge, joined.raw)).status == 200
        await eventually(lambda: is_in({State.HELD}))
        store.go_down()
        left = webhook("room.client.left", id="left", room="/visit-1", num_clients=0)
        assert (await post(receiver.edge, left.raw)).status == 200
        await eventually(lambda: store.asked == ["joined", "left", "left"])
        clock.move_to(clock.boot() + 61)
        store.come_back()
        await eventually(lambda: clock.waited or len(present) == 2)
        store.lease.begin(boot_time())
        await eventually(lambda: is_in({State.FIRED, State.SKIPPED}))
        assert await is_in({State.SKIPPED})
    assert present == [1, 0]


async def test_a_spilled_delivery_has_a_line_that_says_so_and_one_when_it_is_decided(
    outage: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "whereby_trigger.deliveries")
    outage.store.go_down()
    await outage.deliver("a")
    outage.store.come_back()
    await outage.decided("a")

    def lines() -> list[dict[str, object]]:
        return [record.__dict__ for record in caplog.records if hasattr(record, "answer")]

    first, second = await eventually(lambda: lines() if len(lines()) == 2 else [])
    assert (first["webhook_id"], first["answer"], first["decision"]) == ("a", 200, "pending")
    assert first["reason"] == "spilled: waits for the database"
    assert (second["webhook_id"], second["answer"], second["decision"]) == ("a", 200, "fired")


async def test_what_cannot_be_decoded_is_quarantined_by_way_of_the_spill(outage: Outage) -> None:
    outage.store.go_down()
    assert (await post(outage.receiver.edge, b"[]")).status == 200
    outage.store.come_back()
    await eventually(lambda: outage.receiver.running.readiness.spilled == 0)
    (record,) = await outage.records()
    assert (record.state, record.body) == (State.QUARANTINED, b"[]")


async def test_a_name_cut_in_the_middle_of_an_emoji_is_decided_by_way_of_the_spill(
    outage: Outage, asked: list[str]
) -> None:
    cut = webhook("room.client.joined", id="cut", display_name="Zo\ud83d").raw
    outage.store.go_down()
    assert (await post(outage.receiver.edge, cut)).status == 200
    outage.store.come_back()
    records = await outage.decided("cut")
    assert (records["cut"].state, records["cut"].body) == (State.FIRED, cut)
    assert asked == ["cut"]


async def test_a_duplicate_of_what_waits_in_the_spill_is_decided_once(outage: Outage, asked: list[str]) -> None:
    outage.store.go_down()
    await outage.deliver("a")
    await outage.deliver("a")
    outage.store.come_back()
    records = await outage.decided("a")
    assert asked == ["a"]
    await eventually(lambda: outage.receiver.running.readiness.spilled == 0)
    assert records["a"].deliveries == 2


async def test_it_is_ready_for_as_long_as_deliveries_are_taken_and_tells_how_many_wait(outage: Outage) -> None:
    assert (await outage.readyz()).status == 200
    outage.store.go_down()
    for id in "abc":
        await outage.deliver(id)
    answer = await outage.readyz()
    assert (answer.status, json.loads(answer.body), answer.headers["content-type"]) == (
        200,
        {"spilled": 3},
        "application/json",
    )
    assert (await outage.readyz("HEAD")).body == b""
    outage.store.come_back()
    await eventually(lambda: outage.receiver.running.readiness.spilled == 0)
    assert json.loads((await outage.readyz()).body) == {"spilled": 0}


async def test_over_a_connection_the_length_comes_with_its_length(outage: Outage) -> None:
    outage.store.go_down()
    await outage.deliver("a")
    for method, body in (("GET", b'{"spilled": 1}\n'), ("HEAD", b"")):
        answer = await ask(outage.receiver.port, request(method, "/readyz"))
        assert answer is not None
        assert (answer.status, answer.body) == (200, body)


async def test_without_a_spill_a_probe_has_no_body(tmp_path: Path) -> None:
    async with Receiver(tmp_path) as receiver:
        answer = await ask(receiver.port, request("GET", "/readyz"))
        assert answer is not None
        assert (answer.status, answer.body) == (200, b"")


async def test_a_start_without_the_database_takes_deliveries_and_decides_nothing_until_it_is_there(
    tmp_path: Path, asked: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with Outage(tmp_path, asked, down=True) as outage:
        assert f"deliveries go into the spill {tmp_path}/spill.db: the database is unavailable" in caplog.text
        await outage.deliver("a")
        await outage.deliver("b")
        assert (await outage.readyz()).status == 200
        assert asked == []
        outage.store.come_back()
        await eventually(lambda: outage.receiver.running.readiness.spilled == 0)
        records = await outage.decided("a", "b")
        assert asked == ["a", "b"]
        assert {record.owner for record in records.values()} == {outage.store.replica}


async def test_a_drain_does_not_wait_for_a_database_that_is_away(tmp_path: Path, asked: list[str]) -> None:
    async with Outage(tmp_path, asked, down=True) as never_there:
        await never_there.deliver("a")
        async with asyncio.timeout(5):
            await never_there.receiver.running.drain(LONG, asyncio.Event())
    async with Outage(tmp_path, asked) as outage:
        await outage.decided("a")
        outage.store.go_down()
        await outage.deliver("b")
        async with asyncio.timeout(5):
            await outage.receiver.running.drain(LONG, asyncio.Event())
        assert outage.receiver.running.readiness.spilled == 1


async def test_a_drain_waits_until_what_is_in_the_spill_is_decided_where_the_database_is_there(
    tmp_path: Path, asked: list[str]
) -> None:
    async with Outage(tmp_path, asked, down=True) as outage:
        for n in range(20):
            await outage.deliver(f"{n}")
    async with Outage(tmp_path, asked) as outage:
        await outage.receiver.running.drain(LONG, asyncio.Event())
        assert asked == [f"{n}" for n in range(20)]
        assert outage.receiver.running.readiness.spilled == 0


async def test_a_lease_lost_in_the_outage_is_regained_first_and_what_was_spilled_is_the_new_replicas_own(
    tmp_path: Path, asked: list[str]
) -> None:
    async with Outage(tmp_path, asked, lease_ttl=1) as outage:
        replica = outage.store.replica
        outage.store.go_down()
        await outage.deliver("a")
        await eventually(lambda: not outage.store.lease.held)
        outage.store.come_back()
        record = (await outage.decided("a"))["a"]
        assert record.owner == outage.store.replica != replica
        assert record.attempts == 1


async def test_what_neither_the_database_nor_the_disk_takes_is_answered_503(outage: Outage) -> None:
    outage.store.go_down()
    await outage.spill_file.close()
    answer = await post(outage.receiver.edge, webhook("room.client.joined").raw)
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert (await outage.readyz()).status == 503
