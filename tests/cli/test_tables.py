"""Tables on a terminal: no line is wider than it, ids are short, states coloured; piped output is whole."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tests.support.arrivals import arrival
from tests.support.process import run
from tests.support.programs import write
from tests.support.terminal import run_on_terminal
from whereby_trigger.cli.tables import COLOURS, NARROWEST, fitted
from whereby_trigger.store import RoomRequest, RoomState, State
from whereby_trigger.store.sqlite import SqliteStore

COLUMNS = (60, 80, 100, 200)
LISTS = (("events", "list"), ("assistants", "list"), ("check",), ("config",))
ID = "3f2a0c9b11aa47d1" * 4
ROOM = "acme.whereby.com/a-rather-long-room-name-for-a-visit"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """Create a folder with a program, and a store with a webhook and a room."""
    write(tmp_path, "from whereby_trigger import Trigger\ntrigger = Trigger()\n")
    store = SqliteStore(f"sqlite:///{tmp_path}/whereby-trigger.db")
    await store.open(lambda: None)
    reason = "body is not JSON: expected value at line 1, column 1, as far as it could be read"
    await store.add(arrival(ID, room=ROOM, type="room.client.knockCancelled", state=State.QUARANTINED, reason=reason))
    await store.request(RoomRequest(ROOM, f"https://{ROOM}", ID, None, 0.0))
    await store.close()
    return tmp_path


@pytest.mark.anyio
@pytest.mark.parametrize("columns", COLUMNS)
async def test_no_line_of_a_list_is_broken_by_a_terminal(folder: Path, columns: int) -> None:
    for command in LISTS:
        shown = run_on_terminal(*command, cwd=folder, columns=columns)
        lines = [COLOUR.sub("", line) for line in shown.splitlines()]
        assert [line for line in lines if cell_len(line) > columns] == [], command
        assert len(lines) > 1


@pytest.mark.anyio
@pytest.mark.parametrize("columns", COLUMNS)
async def test_an_id_is_12_characters_and_the_reason_is_there_in_full(folder: Path, columns: int) -> None:
    shown = COLOUR.sub("", run_on_terminal("events", "list", cwd=folder, columns=columns))
    assert re.search(rf"\b{ID[:12]}\b", shown)
    assert "quarantined" in shown
    words = " ".join(shown.split())
    assert all(
        word in words
        for word in [
            "body",
            "is",
            "not",
            "JSON:",
            "expected",
            "value",
            "at",
            "line",
            "as",
            "far",
            "as",
            "it",
            "could",
            "be",
        ]
    )


@pytest.mark.anyio
async def test_states_are_coloured_on_a_terminal_that_wants_it_only(folder: Path) -> None:
    coloured = run_on_terminal("events", "list", cwd=folder)
    assert f"\x1b[{COLOURS['quarantined']}mquarantined\x1b[0m" in coloured
    for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert run_on_terminal("events", "list", cwd=folder, env=env) == COLOUR.sub("", coloured)


@pytest.mark.anyio
async def test_piped_output_is_whole_however_narrow_the_terminal(folder: Path) -> None:
    piped = run("events", "list", cwd=folder, env={"COLUMNS": "20"}).stdout
    header, row = piped.splitlines()
    assert header.split() == ["received", "id", "type", "room", "state", "reason"]
    assert ID in row
    assert ROOM in row
    assert row.endswith("as far as it could be read")


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.sampled_from(" ./漢é"), max_size=60)
HEADERS = st.sampled_from(
    [
        ("received", "id", "type", "room", "state", "reason"),
        ("since", "room", "state", "owner", "pid", "attempt", "reason"),
        ("setting", "value", "from"),
        None,
    ]
)


@given(header=HEADERS, data=st.data(), width=st.integers(NARROWEST, 220), coloured=st.booleans())
def test_no_line_is_wider_than_the_terminal_whatever_is_in_the_cells(
    header: tuple[str, ...] | None, data: st.DataObject, width: int, coloured: bool
) -> None:
    count = 3 if header is None else len(header)
    rows = data.draw(st.lists(st.lists(TEXT, min_size=count, max_size=count), min_size=1, max_size=4))
    lines = [COLOUR.sub("", line) for line in fitted(rows, header, width, coloured=coloured)]
    assert max(map(cell_len, lines)) <= width
    # The last column is never cut, only folded.
    letters = "".join("".join(lines).split())
    assert all(letter in letters for row in rows for letter in "".join(row[-1].split()))


def test_every_state_has_a_colour() -> None:
    assert {*State, *RoomState} <= COLOURS.keys()
