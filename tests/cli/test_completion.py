"""Completion in a shell: commands, types, and the rooms and ids of the store; it never imports the program."""

from pathlib import Path

import pytest

from tests.support.arrivals import decided
from tests.support.process import run
from tests.support.programs import write
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.webhook import WEBHOOK_TYPES


def completed(folder: Path, *words: str) -> list[str]:
    """Return what bash offers for the last word of a command line."""
    env = {
        "_WHEREBY_TRIGGER_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["whereby-trigger", *words]),
        "COMP_CWORD": str(len(words)),
    }
    ended = run(cwd=folder, env=env)
    assert (ended.returncode, ended.stderr) == (0, "")
    return [line.partition(",")[2] for line in ended.stdout.splitlines() if line]


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """Create a folder with a store of two webhooks, and a program that must not be imported."""
    write(tmp_path, "raise SystemExit('imported')")
    store = SqliteStore(f"sqlite:///{tmp_path}/whereby-trigger.db")
    await store.open(lambda: None)
    for id in ("abc-1", "abd-2"):
        await decided(store, id)
    await store.close()
    return tmp_path


@pytest.mark.anyio
async def test_types_rooms_and_ids_are_completed_from_the_store(folder: Path) -> None:
    assert completed(folder, "send", "room.session.") == [t for t in WEBHOOK_TYPES if t.startswith("room.session.")]
    assert completed(folder, "events", "list", "--type", "assistant.r") == ["assistant.requested"]
    (key,) = completed(folder, "events", "list", "--room", "")
    assert completed(folder, "send", "room.client.joined", "--room", "/") == ["/" + key.partition("/")[2]]
    assert completed(folder, "events", "show", "abc") == ["abc-1"]
    assert completed(folder, "events", "replay", "abc-1", "ab") == ["abd-2", "abc-1"]


def test_without_a_store_nothing_is_completed_and_nothing_is_created(tmp_path: Path) -> None:
    assert completed(tmp_path, "events", "show", "a") == []
    assert completed(tmp_path, "events", "show", "--store", "nonsense://", "a") == []
    assert list(tmp_path.iterdir()) == []


def test_commands_and_options_are_completed(tmp_path: Path) -> None:
    assert "events" in completed(tmp_path, "ev")
    assert "--new-session" in completed(tmp_path, "send", "--new")
