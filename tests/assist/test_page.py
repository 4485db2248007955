"""docs/assistants.md matches the code, in what follows from a table or a constant."""

import re
from pathlib import Path

import pytest

from scripts.room_diagram import diagram
from whereby_trigger import Session, Trigger
from whereby_trigger.assist.process import KEPT
from whereby_trigger.assist.runners import BACKOFF, NEVER_AGAIN, TRY_AGAIN
from whereby_trigger.clock import RENEWALS
from whereby_trigger.config import OPTIONS
from whereby_trigger.process import EXIT_CODE
from whereby_trigger.store import RoomState
from whereby_trigger.webhook import room_from_url

PAGE = Path(__file__).parents[2].joinpath("docs", "assistants.md").read_text(encoding="utf-8")
PROSE = " ".join(PAGE.split())
DEFAULTS = {option.name: option.default for option in OPTIONS}


def test_the_diagram_is_made_from_the_table() -> None:
    assert f"```mermaid\n{diagram()}```\n" in PAGE, "paste what `python scripts/room_diagram.py` prints"


def test_every_state_is_explained() -> None:
    section = PAGE.partition("## The states of a room")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [str(state) for state in RoomState]


def test_everything_a_session_has_is_listed() -> None:
    table = PAGE.partition("| `session` | |\n")[2].partition("\n\n")[0]
    listed = re.findall(r"`\.(\w+)(?:\(\))?`", "".join(row.split("|")[1] for row in table.splitlines()[1:]))
    session = Session(room_from_url("https://acme.whereby.com/visit-1"), None, 1)
    assert {*listed, "deliver"} == {name for name in dir(session) if not name.startswith("_")}


@pytest.mark.parametrize(
    "sentence",
    [
        "followed by another after {:g} s, then after {:g} s, then after {:g} s".format(*BACKOFF),
        f"three of them within {sum(BACKOFF):g} s",
        f"The last {KEPT} lines of stderr",
        f"| {TRY_AGAIN} | it is",
        f"| {NEVER_AGAIN} | `failed`",
        f"exits with code {EXIT_CODE}",
        f"`max_rooms` ({DEFAULTS['max_rooms']})",
        f"`stop_grace` ({DEFAULTS['stop_grace']:g} s)",
        f"`lease_ttl` ({DEFAULTS['lease_ttl']:g} s)",
        f"renewed every {DEFAULTS['lease_ttl'] / RENEWALS:g} s",
    ],
)
def test_a_figure_is_that_of_the_code(sentence: str) -> None:
    assert sentence in PROSE


def test_the_methods_by_hand_are_a_triggers() -> None:
    for name in set(re.findall(r"trigger\.(\w+_assistants?)\(", PAGE)) | {"assistant", "assistant_command"}:
        assert callable(getattr(Trigger, name))
