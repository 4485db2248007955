"""`forget` and `events export`: what is stored about a person or a room is exported, and removed."""

import asyncio
import errno
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import structs

from tests.cli.conftest import Call
from tests.store.test_privacy import body
from tests.support.arrivals import NOW, ROOM, arrival, decision
from tests.support.place import Place
from tests.support.programs import write
from tests.support.stored import stored
from tests.support.stores import KINDS
from whereby_trigger.store import Count, RoomMove, RoomRequest, RoomState, RunReport, Store, remove_bodies
from whereby_trigger.store.factory import store_for
from whereby_trigger.store.postgres import PostgresStore
from whereby_trigger.store.spill_file import SpillFile, read_content

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=list(KINDS))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with KINDS[request.param](tmp_path) as place:
        yield place


async def fill(store: Store, *, pending: bool = False) -> None:
    for id in ("w1", "w2", "other"):
        about = body(id) if id != "other" else body(id, "someone", "else")
        added = await store.add(arrival(id, body=about))
        assert await store.decide(decision(added.seq, id))
    if pending:
        await store.add(arrival("pending", body=body("pending")))


def filled(place: Place, *, pending: bool = False) -> str:
    async def run() -> None:
        store = place.replica()
        await store.open(lambda: None)
        await fill(store, pending=pending)
        await store.close()

    asyncio.run(run())
    return place.url


def test_forget_says_what_it_would_do_asks_and_does_it(call: Call, place: Place) -> None:
    url = filled(place)
    about = ("--external-id", "mark-external", "--store", url)
    tried = call("forget", *about, "--dry-run")
    assert (tried.returncode, tried.stdout) == (0, "")
    what = "names, ids and metadata from 2 webhooks, and what assistants wrote in their rooms"
    assert tried.stderr == f"Would remove {what}.\n"
    assert len(call("events", "export", *about).stdout.splitlines()) == 2
    assert call("forget", *about, input="n\n").returncode != 0
    assert b"mark-external" in stored(url)[0].body
    done = call("forget", *about, "--yes")
    assert (done.returncode, done.stdout) == (0, "2 webhooks redacted\n"), done.stderr
    assert "mark" not in done.stdout + done.stderr
    exported = call("events", "export", *about)
    assert (exported.stdout, exported.stderr) == ("", "Nothing is stored about it.\n")
    assert [record.id for record in stored(url)] == ["w1", "w2", "other"]


def test_what_waits_for_its_decision_is_named_and_the_exit_says_so(call: Call, place: Place) -> None:
    url = filled(place, pending=True)
    ended = call("forget", "--participant", "mark-participant", "--store", url, "--yes")
    assert ended.returncode == 1
    assert "not decided yet, or lead to such, were left: run this again later (pending)" in ended.stderr
    assert "2 webhooks redacted" in ended.stdout
    whole = call("forget", "--room", "/visit-1", "--store", url, "--yes")
    assert (whole.returncode, whole.stdout) == (0, "4 webhooks deleted\n")
    assert stored(url) == []


def test_an_export_is_a_file_for_its_owner_only(call: Call, place: Place, tmp_path: Path) -> None:
    url = filled(place, pending=True)
    call("events", "export", "--room", "/visit-1", "--store", url, "--out", "visit.jsonl")
    file = tmp_path / "visit.jsonl"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["id"] for line in lines] == ["w1", "w2", "other", "pending"]
    assert json.loads(lines[0]["body"])["data"]["metadata"] == "mark-metadata"


def test_an_export_changes_the_mode_of_no_pipe_and_no_device(call: Call, place: Place, tmp_path: Path) -> None:
    url, pipe = filled(place), tmp_path / "pipe"
    os.mkfifo(pipe)
    pipe.chmod(0o644)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert call("events", "export", "--room", "/visit-1", "--store", url, "--out", str(pipe)).returncode == 0
        assert len(os.read(reader, 1 << 16).splitlines()) == 3
    finally:
        os.close(reader)
    assert stat.S_IMODE(pipe.stat().st_mode) == 0o644


def test_an_export_that_finds_no_store_leaves_the_last_one_as_it_is(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "visit.jsonl"
    file.write_text("of last week")
    ended = call(
        "events", "export", "--room", "/visit-1", "--store", f"sqlite:///{tmp_path}/none.db", "--out", str(file)
    )
    assert ended.returncode != 0
    assert file.read_text() == "of last week"


def test_an_export_that_was_killed_is_written_over_by_the_next(call: Call, place: Place, tmp_path: Path) -> None:
    url, part = filled(place), tmp_path / "visit.jsonl.part"
    part.write_text("half of it")
    about = ("--room", "/visit-1", "--store", url, "--out", "visit.jsonl")
    assert call("events", "export", *about).returncode == 0
    assert len((tmp_path / "visit.jsonl").read_text().splitlines()) == 3
    assert not part.exists()


def test_an_export_that_fails_leaves_the_last_one_as_it_is(
    call: Call, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = filled(place)

    def fails(_: int) -> None:
        raise OSError(errno.EIO, "the disk fails")

    monkeypatch.setattr(os, "fsync", fails)
    (tmp_path / "visit.jsonl").write_text("of last week")
    ended = call("events", "export", "--room", "/visit-1", "--store", url, "--out", "visit.jsonl")
    assert (ended.returncode, "visit.jsonl" in ended.stderr) == (1, True)
    assert (tmp_path / "visit.jsonl").read_text() == "of last week"
    assert not (tmp_path / "visit.jsonl.part").exists()


def test_an_export_to_a_full_disk_names_the_file(call: Call, place: Place) -> None:
    ended = call("events", "export", "--room", "/visit-1", "--store", filled(place), "--out", "/dev/full")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "/dev/full" in ended.stderr


def test_an_export_has_runs_presence_and_the_spill_too(call: Call, tmp_path: Path) -> None:
    async def fill_all(url: str, spill: str) -> None:
        store, file = store_for(url), SpillFile(spill)
        await store.open(lambda: None)
        await file.open()
        about = structs.replace(arrival("w", body=body("w")), count=Count(ROOM, 2, 1, NOW, "s1"))
        added = await store.add(about)
        await store.decide(decision(added.seq, "w"))
        await store.request(RoomRequest(ROOM, f"https://{ROOM}", "w", "s1", NOW))
        (taken,) = await store.take(1)
        await store.move(RoomMove(taken.id, RoomState.FAILED, "exited with 1", run=RunReport(output="said by Ada")))
        await file.append(arrival("spilled", body=body("spilled")))
        await file.close()
        await store.close()

    with KINDS["postgresql"](tmp_path) as place:
        filled(place)
        spill = f"sqlite:///{tmp_path}/spill.db"
        asyncio.run(fill_all(place.url, spill))
        call_it = ("--store", place.url)
        app = write(tmp_path, f"from whereby_trigger import Trigger\ntrigger = Trigger(spill={spill!r})\n")
        exported = call("events", "export", "--room", "visit-1", *call_it)
        lines = [json.loads(line) for line in exported.stdout.splitlines()]
        assert [line["kind"] for line in lines] == [*["webhook"] * 4, "assistant", "presence", "spilled"]
        assert lines[4]["runs"][0]["output"] == "said by Ada"
        assert (lines[5]["humans"], lines[5]["bots"]) == (2, 1)
        assert json.loads(lines[6]["body"])["data"]["metadata"] == "mark-metadata"
        app.unlink()
        env = {"WHEREBY_TRIGGER_SPILL": spill}
        exported = call("events", "export", "--external-id", "mark-external", *call_it, env=env)
        kinds = [json.loads(line)["kind"] for line in exported.stdout.splitlines()]
        assert kinds == [*["webhook"] * 3, "assistant", "spilled"]


@pytest.mark.parametrize("command", ["forget", "events export"])
@pytest.mark.parametrize("subject", [(), ("--room", "/r", "--participant", "p"), ("--external-id", "")])
def test_a_call_names_one_person_or_room(call: Call, command: str, subject: tuple[str, ...]) -> None:
    ended = call(*command.split(), *subject)
    assert ended.returncode == 2
    assert "name one of --participant, --external-id and --room" in ended.stderr


def test_replay_and_show_say_that_a_body_was_removed(call: Call, place: Place) -> None:
    url = filled(place)

    async def remove() -> None:
        store = store_for(url)
        await store.open(lambda: None)
        assert await remove_bodies(store, 1e12) == 3
        await store.close()

    asyncio.run(remove())
    replayed = call("events", "replay", "w1", "--store", url)
    assert (replayed.returncode, replayed.stdout) == (0, "")
    assert replayed.stderr == "1 left out: what the bodies said was removed by body_retention or by `forget`.\n"
    assert "people      removed 20" in call("events", "show", "w1", "--store", url).stdout


def test_the_spill_is_searched_and_its_file_holds_nothing_of_a_forgotten_room(call: Call, tmp_path: Path) -> None:
    with KINDS["postgresql"](tmp_path) as place:
        url, spill = filled(place), f"sqlite:///{tmp_path}/spill.db"

        async def spilled() -> SpillFile:
            file = SpillFile(spill)
            await file.open()
            await file.append(arrival("spilled", body=body("spilled")))
            await file.append(arrival("elsewhere", body=b"{}", room="acme.whereby.com/other"))
            return file

        async def close() -> None:
            await (await spilled()).close()

        asyncio.run(close())
        env = {"WHEREBY_TRIGGER_SPILL": spill}
        left = call("forget", "--external-id", "mark-external", "--store", url, "--yes", env=env)
        assert left.returncode == 1
        assert "are still to be decided: run this again later (spilled)" in left.stderr

        async def in_use() -> None:
            file = SpillFile(spill)
            await file.open()
            try:
                busy = await asyncio.to_thread(call, "forget", "--room", "/visit-1", "--store", url, "--yes")
                assert "by the trigger that has it" in busy.stderr
            finally:
                await file.close()

        asyncio.run(in_use())
        done = call("forget", "--room", "/visit-1", "--store", url, "--yes")
        assert done.returncode == 0, done.stderr
        for file in tmp_path.glob("spill.db*"):
            assert b"mark-metadata" not in file.read_bytes()
        with closing(sqlite3.connect(tmp_path / "spill.db")) as connection:
            assert connection.execute("SELECT count(*) FROM deliveries").fetchone() == (1,)


def test_a_delivery_that_leaves_the_spill_while_the_files_are_cleaned_is_named(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with KINDS["postgresql"](tmp_path) as place:
        url, spill = filled(place), f"sqlite:///{tmp_path}/spill.db"
        late = arrival("late", body=body("late"))

        async def spilled() -> None:
            file = SpillFile(spill)
            await file.open()
            await file.append(late)
            await file.close()

        async def drained(store: Store, *, rewrite: bool | None) -> str:
            file = SpillFile(spill)
            await file.open()
            await store.add(late)
            await file.remove([seq for seq, _ in await file.numbered()])
            await file.close()
            return ""

        asyncio.run(spilled())
        monkeypatch.setattr(PostgresStore, "wipe", drained)
        monkeypatch.setenv("WHEREBY_TRIGGER_SPILL", spill)
        for subject in (("--external-id", "mark-external"), ("--room", "/visit-1")):
            ended = call("forget", *subject, "--store", url, "--yes", env={"WHEREBY_TRIGGER_SPILL": spill})
            assert ended.returncode == 1
            assert "came from the spill meanwhile: run this again (late)" in ended.stderr
            asyncio.run(spilled())


REMOVES_AND_DIES = """
import asyncio, os, signal, sys
from tests.store.test_privacy import body
from tests.support.arrivals import arrival
from whereby_trigger.store.spill_file import SpillFile

async def main():
    file = SpillFile(sys.argv[1])
    await file.open()
    others = int(sys.argv[2])
    appended = [file.append(arrival(f"{n}", body=body(f"{n}"))) for n in range(100)]
    # A row is moved, and leaves a copy behind, when its neighbours go.
    for n in range(others):
        appended.append(file.append(arrival(f"else {n}", room="acme.whereby.com/else")))
        appended.append(file.append(arrival(f"also {n}", body=body(f"also {n}"))))
    await asyncio.gather(*appended)
    ours = [seq for seq, one in await file.numbered() if one.room != "acme.whereby.com/else"]
    for at in range(0, len(ours), 20):
        await file.remove(ours[at:at + 20])
    if sys.argv[3] == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    print("removed", flush=True)
    sys.stdin.read()

asyncio.run(main())
"""


@pytest.mark.parametrize("others", [0, 100])
@pytest.mark.parametrize("subject", [("--room", "/visit-1"), ("--external-id", "mark-external")], ids=str)
def test_a_spill_whose_last_user_was_killed_holds_nothing_after_a_forget(
    call: Call, tmp_path: Path, subject: tuple[str, str], others: int
) -> None:
    with KINDS["postgresql"](tmp_path) as place:
        url, spill = filled(place), f"sqlite:///{tmp_path}/spill.db"
        program = [sys.executable, "-c", REMOVES_AND_DIES, spill, str(others), "dies"]
        assert subprocess.run(program, cwd=ROOT, check=False).returncode == -signal.SIGKILL
        assert any(b"mark-metadata" in file.read_bytes() for file in tmp_path.glob("spill.db*"))
        env = {"WHEREBY_TRIGGER_SPILL": spill}
        done = call("forget", *subject, "--store", url, "--yes", env=env)
        assert done.returncode == 0, done.stderr
        assert not any(b"mark-metadata" in file.read_bytes() for file in tmp_path.glob("spill.db*"))
        assert read_content(tmp_path / "spill.db").waiting == others


def test_a_spill_in_use_that_may_hold_pieces_of_what_has_left_it_is_named(call: Call, tmp_path: Path) -> None:
    with KINDS["postgresql"](tmp_path) as place:
        url, spill = filled(place), f"sqlite:///{tmp_path}/spill.db"
        env = {"WHEREBY_TRIGGER_SPILL": spill}
        program = [sys.executable, "-c", REMOVES_AND_DIES, spill, "100", "lives"]
        with subprocess.Popen(program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as popen:
            assert popen.stdout is not None
            assert popen.stdout.readline() == b"removed\n"
            assert any(b"mark-metadata" in file.read_bytes() for file in tmp_path.glob("spill.db*"))
            ended = call("forget", "--room", "/visit-1", "--store", url, "--yes", env=env)
            assert ended.returncode == 1
            assert "may hold pieces of what has left it until the others have left it, too" in ended.stderr
            popen.communicate()
        assert call("forget", "--room", "/visit-1", "--store", url, "--yes", env=env).returncode == 0


def test_a_delivery_in_the_spill_that_cannot_be_decoded_is_found_and_forgotten(call: Call, tmp_path: Path) -> None:
    with KINDS["postgresql"](tmp_path) as place:
        url, spill = filled(place), f"sqlite:///{tmp_path}/spill.db"

        async def spilled() -> None:
            file = SpillFile(spill)
            await file.open()
            await file.append(arrival("odd", body=body("odd")))
            await file.close()

        asyncio.run(spilled())
        with closing(sqlite3.connect(tmp_path / "spill.db")) as connection, connection:
            connection.execute("UPDATE deliveries SET arrival = CAST(x'01' || arrival AS BLOB)")
        env = {"WHEREBY_TRIGGER_SPILL": spill}
        exported = call("events", "export", "--external-id", "mark-external", "--store", url, env=env)
        assert "mark-metadata" in json.loads(exported.stdout.splitlines()[-1])["body"]
        left = call("forget", "--external-id", "mark-external", "--store", url, "--yes")
        assert left.returncode == 1
        assert "(row 1 of the spill)" in left.stderr
        assert call("forget", "--room", "/visit-1", "--store", url, "--yes").returncode == 0
        assert not any(b"mark-metadata" in file.read_bytes() for file in tmp_path.glob("spill.db*"))
