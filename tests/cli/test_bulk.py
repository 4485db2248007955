"""Actions on many webhooks: they say what they would do, ask first, show their progress, and can be stopped."""

import asyncio
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.support.arrivals import NOW, arrival, decision
from tests.support.process import COMMAND
from tests.support.stored import stored
from tests.support.terminal import Terminal
from whereby_trigger.cli import output
from whereby_trigger.store import Query, State
from whereby_trigger.store.sqlite import SqliteStore

REPLAY = ("events", "replay", "--state", "skipped")
PRUNE = ("db", "prune", "--older-than", "0")
NOBODY = "nobody can be asked since standard input is no terminal: add --yes to do it, or --dry-run to see"


async def fill(url: str, count: int) -> None:
    store = SqliteStore(url)
    await store.open(lambda: None)
    added = await asyncio.gather(*(store.add(arrival(f"w{n}", received_at=NOW - 1e8)) for n in range(count)))
    decided = (decision(each.seq, f"w{n}", State.SKIPPED) for n, each in enumerate(added))
    assert all(await asyncio.gather(*map(store.decide, decided)))
    await store.close()


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/whereby-trigger.db"
    asyncio.run(fill(url, 3))
    return url


@pytest.mark.parametrize(
    ("command", "would"), [(REPLAY, "replay 3 webhooks"), (PRUNE, "delete 3 webhooks received before 2")]
)
def test_without_a_terminal_and_without_yes_nothing_is_done_and_the_error_says_what_to_add(
    call: Call, url: str, command: tuple[str, ...], would: str
) -> None:
    before = stored(url)
    ended = call(*command)
    assert ended.returncode == 2
    assert would in ended.stderr
    assert NOBODY in ended.stderr
    assert stored(url) == before


@pytest.mark.parametrize(
    ("command", "would"), [(REPLAY, "Would replay 3 webhooks."), (PRUNE, "Would delete 3 webhooks received before 2")]
)
def test_a_dry_run_says_what_would_be_done_and_does_nothing_even_with_yes(
    call: Call, url: str, command: tuple[str, ...], would: str
) -> None:
    before = stored(url)
    ended = call(*command, "--dry-run", "--yes")
    assert (ended.returncode, ended.stdout) == (0, "")
    assert would in ended.stderr
    assert stored(url) == before


def test_with_yes_it_is_done_without_a_question(call: Call, url: str) -> None:
    assert sorted(call(*REPLAY, "--yes").stdout.split()) == ["w0", "w1", "w2"]
    assert {record.state for record in stored(url)} == {State.PENDING}


def test_webhooks_that_are_named_are_replayed_without_a_question(call: Call, url: str) -> None:
    assert call("events", "replay", "w1").stdout == "w1\n"


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("n\n", 3)])
def test_on_a_terminal_it_asks(tmp_path: Path, url: str, answer: str, left: int) -> None:
    with Terminal([COMMAND, *PRUNE], cwd=tmp_path) as terminal:
        terminal.until(r"Delete 3 webhooks received before [^?]*\? \[y/N\]: ")
        terminal.press(answer)
        assert terminal.ended() == 0
    assert len(stored(url)) == left


def test_what_is_interrupted_keeps_what_is_done_and_says_how_much_that_is(
    call: Call, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay, calls = SqliteStore.replay, []

    async def interrupted(self: SqliteStore, query: Query, now: float) -> list[str]:
        calls.append(query)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return await replay(self, query, now)

    monkeypatch.setattr(SqliteStore, "replay", interrupted)
    # In the package, the name of the command group is also that of its module.
    monkeypatch.setattr(import_module("whereby_trigger.cli.events"), "AT_ONCE", 2)
    ended = call(*REPLAY, "--yes")
    assert ended.returncode == 130
    assert "Interrupted: 2 of 3 are done. The others stay as they are." in ended.stderr
    states = [record.state for record in stored(url)]
    assert (states.count(State.PENDING), states.count(State.SKIPPED)) == (2, 1)


PROGRAM = """
import sys
from whereby_trigger.cli.output import progress
with progress(int(sys.argv[1]), "") as advance:
    for _ in range(4):
        advance(int(sys.argv[1]) // 4)
print("done")
"""


@pytest.mark.parametrize(("rows", "has_bar"), [(output.PROGRESS_FROM, True), (output.PROGRESS_FROM - 4, False)])
def test_many_rows_have_a_progress_bar_on_a_terminal(tmp_path: Path, rows: int, has_bar: bool) -> None:
    with Terminal([sys.executable, "-c", PROGRAM, str(rows)], cwd=tmp_path) as terminal:
        shown = terminal.until(r"(?s)^.*done").group()
    assert bool(re.search(rf"{rows}/{rows}", shown)) == has_bar
