"""The end of a run that cannot be stored as it came: no room keeps an assistant that has gone."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.place import Place
from tests.support.stores import KINDS
from tests.support.supervised import Supervised
from tests.support.until import eventually
from whereby_trigger.assist import Session
from whereby_trigger.assist.runners import LONGEST_OUTPUT, Run, RunEnd, RunResult
from whereby_trigger.errors import AssistantRefused, StoreError
from whereby_trigger.store import Room, RoomMove, RoomQuery, RoomState, RunOutcome, RunQuery, RunRecord, Store

pytestmark = pytest.mark.anyio

LIVE, FAILED = RoomState.LIVE, RoomState.FAILED
ODD = "a\0b\udcffc"
FIT = "a\N{REPLACEMENT CHARACTER}b?c"


@pytest.fixture(params=list(KINDS))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with KINDS[request.param](tmp_path) as place:
        yield place


async def end_of(place: Place, function: Callable[[Session], Awaitable[None]]) -> tuple[Room, RunRecord]:
    async with Supervised(place.replica(), function) as one:
        await one.ask()
        return await one.reaches(FAILED), await last_run(one.store)


async def last_run(store: Store) -> RunRecord:
    return (await store.find_runs(RunQuery(limit=1)))[0]


async def test_what_was_raised_is_stored_whatever_is_in_its_text(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whereby_trigger.assist.runners.BACKOFF", ())
    names = ", ".join(f"name {number}" for number in range(1000))

    async def raises(session: Session) -> None:
        raise RuntimeError(ODD + names)

    _, run = await end_of(place, raises)
    assert FIT + names in run.output


async def test_of_very_much_that_was_raised_the_end_is_stored(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whereby_trigger.assist.runners.BACKOFF", ())

    async def raises(session: Session) -> None:
        raise RuntimeError("x" * 2 * LONGEST_OUTPUT + "the end")

    _, run = await end_of(place, raises)
    assert len(run.output) == LONGEST_OUTPUT + 1
    assert run.output.startswith("…x")
    assert run.output.endswith("xthe end\n")


async def test_why_one_was_refused_is_stored_whatever_is_in_the_reason(place: Place) -> None:
    async def is_refused(session: Session) -> None:
        raise AssistantRefused(ODD, retry=False)

    room, run = await end_of(place, is_refused)
    assert room.reason == run.reason == f"refused: {FIT}"
    assert run.outcome is RunOutcome.REFUSED


async def test_an_error_of_the_launch_itself_is_stored_whatever_is_in_its_text(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.assist.runners.BACKOFF", ())

    async def launch(run: Run, launched: Callable[[int | None], None]) -> RunResult:
        raise OSError(ODD)

    async with Supervised(place.replica(), launch=launch) as one:
        await one.ask()
        await one.reaches(FAILED)
        run = await last_run(one.store)
        assert (run.output, run.exception, run.live_at) == (FIT, "OSError", None)


class Refusing:
    """A store that refuses moves with errors in them, or all moves."""

    def __init__(self, store: Store, *, always: bool) -> None:
        self._store = store
        self._always = always
        self.refused: list[RoomMove] = []
        self.looks = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def find_rooms(self, query: RoomQuery) -> list[Room]:
        self.looks += 1
        return await self._store.find_rooms(query)

    async def move(self, move: RoomMove) -> bool:
        if move.run.output or (self._always and move.state is FAILED):
            self.refused.append(move)
            raise StoreError("the store refused a value")
        return await self._store.move(move)


async def fails(run: Run, launched: Callable[[int | None], None]) -> RunResult:
    launched(None)
    return RunResult(RunEnd.REFUSED, "refused: enough", retry=False, errors=("what it said",))


async def test_an_end_that_the_store_refuses_is_recorded_once_more_without_its_output(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async with Supervised(place.replica(), launch=fails) as one:
        refusing = Refusing(one.store, always=False)
        one.supervisor._store = refusing
        await one.ask()
        room = await one.reaches(FAILED)
        run = await last_run(one.store)
    assert (room.owner, run.output, run.outcome, len(refusing.refused)) == (None, "", RunOutcome.REFUSED, 1)
    assert "refused" in room.reason
    (logged,) = [record for record in caplog.records if "not recorded" in record.getMessage()]
    assert logged.levelno == logging.ERROR
    assert "the store refused a value" in logged.getMessage()


async def test_an_end_that_the_store_refuses_again_is_given_up_and_logged(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async with Supervised(place.replica(), launch=fails) as one:
        refusing = Refusing(one.store, always=True)
        one.supervisor._store = refusing
        await one.ask()
        await one.reaches(LIVE)
        for _ in range(10):
            await asyncio.sleep(0)
    assert [bool(move.run.output) for move in refusing.refused] == [True, False]
    assert len([record for record in caplog.records if "not recorded" in record.getMessage()]) == 2


async def test_an_end_that_was_given_up_starts_no_assistant_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.assist.supervisor.OWN_EVERY", 0.0)
    async with Supervised(place.replica(), launch=fails) as one:
        refusing = Refusing(one.store, always=True)
        one.supervisor._store = refusing
        await one.ask()
        await eventually(lambda: len(refusing.refused) >= 2)
        looked = refusing.looks

        def looked_again() -> bool:
            one.supervisor.wake()
            return refusing.looks >= looked + 3

        await eventually(looked_again)
    assert [bool(move.run.output) for move in refusing.refused] == [True, False]
