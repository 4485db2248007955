"""What the database refuses for its values was already answered 200: it blocks nothing, and is not lost."""

import logging
import sqlite3
from contextlib import closing

import pytest

from tests.spill.conftest import Open, Spilling
from tests.support.arrivals import NOW, arrival
from whereby_trigger.store import Arrival, State
from whereby_trigger.store.spill_file import SpillContent, read_content
from whereby_trigger.webhook import identify

pytestmark = pytest.mark.anyio

REFUSED = arrival("b", state=State.FIRED, body=b"refused")
"""No webhook can be stored as decided."""

UNSTORABLE = Arrival("b", "t", None, b"unstorable", float("nan"))
"""SQLite stores this time as NULL, and a webhook must have one, even in quarantine."""


async def spill(one: Spilling, *arrivals: Arrival) -> None:
    one.store.go_down()
    for each in arrivals:
        assert (await one.spill.add(each)).spilled
    one.store.come_back()
    await one.drained()


async def test_it_is_quarantined_with_its_bytes_and_the_rest_is_stored_as_ever(
    one: Spilling, caplog: pytest.LogCaptureFixture
) -> None:
    await spill(one, arrival("a"), REFUSED, arrival("c"))
    records = {record.id: record for record in await one.records()}
    assert set(records) == {"a", "c", identify(b"refused")}
    quarantined = records[identify(b"refused")]
    assert (quarantined.state, quarantined.body, quarantined.received_at) == (State.QUARANTINED, b"refused", NOW)
    assert quarantined.reason == "the database refused what was read in it"
    assert f"a delivery from the spill is quarantined as {quarantined.id}" in caplog.text
    assert read_content(one.path) == SpillContent(0, 0)


async def test_where_even_that_is_refused_it_is_kept_aside_and_said(
    one: Spilling, caplog: pytest.LogCaptureFixture
) -> None:
    await spill(one, arrival("a"), UNSTORABLE, arrival("c"))
    assert await one.ids() == ["a", "c"]
    assert read_content(one.path) == SpillContent(waiting=0, refused=1)
    assert f"a delivery is kept aside in the spill {one.path}: the database refuses it" in caplog.text
    assert not (await one.spill.add(arrival("d"))).spilled


async def test_what_is_kept_aside_is_tried_again_at_the_next_start(opened: Open) -> None:
    one = await opened()
    await spill(one, UNSTORABLE)
    await one.spill.close()
    other = await opened()
    await other.drained()
    assert UNSTORABLE.id in other.store.asked
    assert read_content(one.path) == SpillContent(waiting=0, refused=1)


async def test_what_this_program_cannot_read_is_kept_aside(opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    one = await opened(lambda one: one.store.go_down())
    await one.spill.add(arrival("a"))
    await one.spill.close()
    with closing(sqlite3.connect(one.path)) as file, file:
        file.execute("INSERT INTO deliveries (arrival) VALUES (?)", (b"\xc1 from the future",))
    other = await opened()
    await other.drained()
    assert await other.ids() == ["a"]
    assert read_content(one.path) == SpillContent(waiting=0, refused=1)
    assert "this program cannot read it" in caplog.text


async def test_its_text_is_in_no_log_line(one: Spilling, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await spill(one, arrival("Robin Canary", state=State.FIRED, room="canary"), UNSTORABLE)
    assert "anary" not in caplog.text
    assert "unstorable" not in caplog.text
