"""A command with `stdin="stream"` can read what happens in its room, and blocks nobody if it does not."""

import asyncio
import json
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.assist.programs import reader
from tests.assist.test_command import read_strictly
from tests.assist.test_session import count, session_of
from tests.support.arrivals import ROOM, arrival
from tests.support.counts import say
from tests.support.place import Place
from tests.support.presence import Presence as Seen
from tests.support.process import Process, whereby_trigger
from tests.support.stores import KINDS
from tests.support.supervised import LONG, Supervised
from tests.support.until import eventually
from tests.support.whereby import SECRET, deliver
from tests.webhook.test_json_verdicts import TAKEN
from whereby_trigger import Trigger, Webhook
from whereby_trigger.assist import Session, command_assistant, launcher
from whereby_trigger.assist.runners import Launch, Run, RunResult
from whereby_trigger.assist.session import room_events
from whereby_trigger.clock import boot_time
from whereby_trigger.errors import RegistrationError
from whereby_trigger.store import UNKNOWN, Presence, RoomState
from whereby_trigger.testing import webhook
from whereby_trigger.webhook import decode

pytestmark = pytest.mark.anyio

LIVE, WAITING, ENDED = RoomState.LIVE, RoomState.WAITING, RoomState.ENDED
BIG = 2000
"""Bytes of a webhook of which some dozens fill a pipe."""


@pytest.fixture(params=list(KINDS))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with KINDS[request.param](tmp_path) as place:
        yield place


@pytest.fixture
def between(presence: Seen) -> Iterator[None]:
    """Keep the FIFO from ending between one command and the next."""
    descriptor = os.open(presence.path, os.O_WRONLY)
    yield
    os.close(descriptor)


class Launched:
    """Launch a command in each room, and hold the runs by room name."""

    def __init__(self, commands: dict[str, list[str]]) -> None:
        self.runs: dict[str, Run] = {}
        self._launches = {name: self._launch(argv) for name, argv in commands.items()}

    def _launch(self, argv: list[str]) -> Launch:
        assistant = command_assistant(argv, None, False, False, stdin="stream")
        return launcher(assistant, grace=LONG, deadline=lambda: boot_time() + LONG)

    async def __call__(self, run: Run, launched: Any) -> RunResult:
        name = run.session.room_name[1:]
        self.runs[name] = run
        return await self._launches[name](run, launched)


def knocks(numbers: range, size: int = 0) -> list[Webhook]:
    return [webhook("room.client.knocked", id=str(n), metadata="x" * size) for n in numbers]


async def add(one: Supervised, *webhooks: Webhook, name: str = "visit-1") -> None:
    for each in webhooks:
        await one.store.add(arrival(each.id, body=each.raw, room=f"acme.whereby.com/{name}"))
    one.supervisor.wake(f"acme.whereby.com/{name}")


async def said(presence: Seen, *lines: str) -> None:
    """Wait until a command writes these lines, with none in between except that TERM came, at any time."""
    for line in lines:
        while (said := await asyncio.to_thread(presence.line, "")) != line:
            assert said.endswith("was told to leave"), (said, line)


# What it reads


async def test_a_command_that_reads_gets_each_webhook_once_and_in_order_and_then_the_end_of_file(
    place: Place, presence: Seen
) -> None:
    fired = count(1, at=0)
    launch = Launched({"visit-1": reader(presence, "A")})
    async with Supervised(place.replica(), launch=launch) as one, Supervised(place.replica(), max_rooms=0) as two:
        await add(one, fired)
        await one.ask(webhook=fired.id)
        await one.reaches(LIVE)
        await said(presence, f"A here {(await one.reaches(LIVE)).pid}", "A first 1", "A presence 1 0")
        for n in range(20):
            await add((one, two)[n % 2], *knocks(range(n, n + 1)))
        joined, left = count(2, bots=1, at=10), count(0, at=20, type="room.client.left")
        await add(two, joined, left)
        one.supervisor.wake()
        await said(presence, *(f"A webhook {n}" for n in range(20)))
        await said(presence, f"A webhook {joined.id}", "A presence 2 1", f"A webhook {left.id}", "A presence 0 0")
        await one.stop()
        await said(presence, "A leave stopped by hand", "A end of file")
        assert (await one.reaches(ENDED)).reason == "stopped by hand"


async def test_a_command_that_is_started_by_hand_reads_first_who_is_there_as_the_store_knows_it(
    place: Place, presence: Seen
) -> None:
    launch = Launched({"visit-1": reader(presence, "A")})
    async with Supervised(place.replica(), launch=launch) as one:
        await say(one.store, "j1", 0, humans=2, bots=1)
        await one.ask()
        pid = (await one.reaches(LIVE)).pid
        await said(presence, f"A here {pid}", "A first 1", "A presence 2 1")


@pytest.mark.usefixtures("between")
async def test_a_command_that_is_started_again_reads_all_since_the_webhook_that_fired(
    tmp_path: Path, presence: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.assist.runners.BACKOFF", (0.0, 0.0, 0.0))
    launch = Launched({"visit-1": reader(presence, "A")})
    with KINDS["sqlite"](tmp_path) as place:
        async with Supervised(place.replica(), launch=launch) as one:
            fired = webhook("room.session.started")
            await add(one, fired)
            await one.ask(webhook=fired.id)
            pid = (await one.reaches(LIVE)).pid
            assert pid is not None
            await add(one, *knocks(range(1)))
            await said(presence, f"A here {pid}", "A first 1", "A webhook 0")
            os.kill(pid, signal.SIGKILL)
            room = await one.reaches(LIVE, attempt=2)
            await said(presence, f"A here {room.pid}", "A first 2", "A webhook 0")


# Who does not read, or not in time


async def test_a_command_that_never_reads_holds_up_neither_the_other_rooms_nor_a_drain_nor_its_own_end(
    place: Place, presence: Seen
) -> None:
    launch = Launched({"deaf": reader(presence, "deaf", "--never"), "hears": reader(presence, "hears")})
    async with Supervised(place.replica(), launch=launch) as one:
        for name in ("deaf", "hears"):
            await one.ask(name)
            await one.reaches(LIVE, name)
            assert "here" in await asyncio.to_thread(presence.line, "here")
        await add(one, *knocks(range(100), BIG), name="deaf")
        await eventually(lambda: len(launch.runs["deaf"].session._unread) > 20)
        await add(one, *knocks(range(200, 210)), name="hears")
        await said(presence, "hears first 1", *(f"hears webhook {n}" for n in range(200, 210)))
        # The one that does not read has a minute to leave, and needs none of it.
        await asyncio.wait_for(one.supervisor.hand_over("the replica is draining"), LONG / 4)
        told = await asyncio.to_thread(presence.everybody_gone)
        assert "deaf was told to leave" in told
        left = [line for line in told if line.startswith("hears") and "was told" not in line]
        assert left == ["hears leave the replica is draining", "hears end of file"]
        for name in ("deaf", "hears"):
            assert (await one.reaches(WAITING, name)).reason == "handed over by a replica that stopped"


async def test_a_command_that_reads_late_is_told_how_many_were_dropped_and_where(
    tmp_path: Path, presence: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.assist.session.UNREAD", 30)
    launch = Launched({"visit-1": reader(presence, "A", "--late")})
    with KINDS["sqlite"](tmp_path) as place:
        async with Supervised(place.replica(), launch=launch) as one:
            await one.ask()
            pid = (await one.reaches(LIVE)).pid
            assert pid is not None
            await said(presence, f"A here {pid}")
            session = launch.runs["visit-1"].session
            # As many as the session holds, and more than fits into the pipe.
            await add(one, *knocks(range(30), BIG))
            await eventually(lambda: 0 < len(session._unread) < 30)
            await add(one, *knocks(range(30, 100), BIG))
            await eventually(lambda: launch.runs["visit-1"].cursor >= 100)
            dropped = session.missed
            assert dropped > 0
            os.kill(pid, signal.SIGUSR1)
            await said(presence, "A first 1")
            expected = 0
            while expected < 100:
                word, number = (await asyncio.to_thread(presence.line, "A ")).split()[1:]
                if word == "dropped":
                    dropped -= int(number)
                    expected += int(number)
                else:
                    assert (word, int(number)) == ("webhook", expected)
                    expected += 1
            assert dropped == 0
            await add(one, *knocks(range(100, 101)))
            await said(presence, "A webhook 100")


async def test_a_command_that_closes_its_stdin_goes_on_and_nothing_more_is_kept_for_it(
    place: Place, presence: Seen
) -> None:
    launch = Launched({"visit-1": reader(presence, "A", "--closes")})
    async with Supervised(place.replica(), launch=launch) as one:
        await one.ask()
        pid = (await one.reaches(LIVE)).pid
        await said(presence, f"A here {pid}", "A first 1", "A closed")
        run = launch.runs["visit-1"]
        await add(one, *knocks(range(1)))
        await eventually(lambda: not run.has_reader)
        await add(one, *knocks(range(1, 5)))
        assert (run.session.missed, list(run.session._unread)) == (0, [])
        await one.stop()
        await said(presence, "A was told to leave")
        assert (await one.reaches(ENDED)).reason == "stopped by hand"


async def test_a_fork_that_keeps_the_pipe_holds_up_neither_the_end_of_file_nor_the_end(
    tmp_path: Path, presence: Seen, either_guard: None
) -> None:
    launch = Launched({"visit-1": reader(presence, "A", "--forks")})
    with KINDS["sqlite"](tmp_path) as place:
        async with Supervised(place.replica(), launch=launch) as one:
            await one.ask()
            fork = int((await asyncio.to_thread(presence.line, "fork")).split()[2])
            await one.reaches(LIVE)
            await one.stop()
            await asyncio.to_thread(presence.line, "end of file")
            await one.reaches(ENDED)
            with pytest.raises(ProcessLookupError):
                os.kill(fork, 0)


# The end


APP = """
from whereby_trigger import Trigger
trigger = Trigger(webhook_triggers={{"room.client.joined": lambda: True}}, stop_grace=20)
trigger.assistant_command({argv!r}, stdin="stream")
"""


def serve(folder: Path, place: Place, argv: list[str]) -> Process:
    (folder / "app.py").write_text(APP.format(argv=argv))
    start = whereby_trigger("start", "app.py", "--port", "0", "--store", place.url)
    return Process(start, cwd=folder, env={"WHEREBY_WEBHOOK_SECRET": SECRET})


def begin(process: Process, presence: Seen) -> str:
    """Start an assistant in a room, in the session s1; return where to deliver."""
    url = f"http://127.0.0.1:{process.port()}/"
    roles = {"visitor": 1}
    person = webhook("room.client.joined", id="j1", room_session_id="s1", num_clients_by_role_name=roles)
    assert deliver(url, person).status == 200
    presence.line("A presence 1 0")
    return url


@pytest.mark.usefixtures("between")
def test_the_end_of_file_comes_when_the_session_ends_and_when_the_replica_drains(
    place: Place, presence: Seen, tmp_path: Path
) -> None:
    with serve(tmp_path, place, reader(presence, "A")) as process:
        url = begin(process, presence)
        knocked = webhook("room.client.knocked", id="k1")
        assert deliver(url, knocked).status == 200
        assert presence.line("webhook") == "A webhook k1"
        assert deliver(url, webhook("room.session.ended", room_session_id="s1")).status == 200
        presence.line("A leave the session has ended")
        assert presence.line("A end") == "A end of file"
        again = webhook("room.client.joined", room_session_id="s2")
        assert deliver(url, again).status == 200
        presence.line("A first 1")
        process.popen.send_signal(signal.SIGINT)
        presence.line("A leave the replica is draining")
        assert presence.line("A end") == "A end of file"
        assert process.wait() == 0


def test_the_end_of_file_comes_when_the_replica_is_killed(place: Place, presence: Seen, tmp_path: Path) -> None:
    with serve(tmp_path, place, reader(presence, "A")) as process:
        begin(process, presence)
        process.kill()
        told = presence.everybody_gone()
        assert "A end of file" in told
        assert not [line for line in told if line.startswith("A leave")]


# The lines themselves


async def events(session: Session, presence: Presence = UNKNOWN) -> list[dict[str, Any]]:
    session.ended.set("over")
    return [read_strictly(line) async for line in room_events(session, ROOM, presence)]


@pytest.mark.parametrize("raw", TAKEN.values(), ids=TAKEN)
async def test_whatever_webhook_comes_is_a_line_of_json_that_every_parser_reads(raw: bytes) -> None:
    session = session_of(None)
    session.deliver(decode(raw))
    session.ended.set("over")
    lines = [line async for line in room_events(session, ROOM, UNKNOWN)]
    assert all(line.isascii() and line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)
    (told,) = [event["webhook"] for event in map(read_strictly, lines) if event["event"] == "webhook"]
    assert told["id"] == decode(raw).id


async def test_presence_says_how_many_people_and_bots_are_there_and_since_when() -> None:
    session = session_of(count(1, at=0))
    first = session.presence
    for each in (count(2, at=2), count(2, bots=1, at=5), count(1, at=1), count(0, at=9, type="room.client.left")):
        session.deliver(each)
    since = [f"2026-07-01T12:00:0{second}.000Z" for second in (0, 2, 2, 9)]
    told = [event for event in await events(session, first) if event["event"] == "presence"]
    assert told == [
        {"event": "presence", "humans": humans, "bots": bots, "since": moment}
        for (humans, bots), moment in zip([(1, 0), (2, 0), (2, 1), (0, 0)], since, strict=True)
    ]


async def test_presence_is_not_told_until_a_count_has_come() -> None:
    session = session_of(None)
    session.deliver(webhook("room.session.started"))
    assert [event["event"] for event in await events(session)] == ["webhook", "leave"]


COUNTS = st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 5))
STEPS = st.lists(st.none() | COUNTS, max_size=40)


@settings(max_examples=60)
@given(STEPS)
async def test_whenever_it_reads_nothing_is_lost_without_being_counted_and_presence_is_right_at_the_end(
    steps: list[tuple[int, int, int] | None],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("whereby_trigger.assist.session.UNREAD", 3)
        patch.setattr(logging.getLogger("whereby_trigger.assistant"), "disabled", True)
        session = session_of(None)
        delivered: list[str] = []
        lines: list[dict[str, Any]] = []
        reading = room_events(session, ROOM, UNKNOWN)
        for step in steps:
            if step is None and session._unread:
                lines.append(json.loads(await anext(reading)))
            elif step is not None:
                humans, bots, at = step
                came = count(humans, bots=bots, at=at)
                delivered.append(came.id)
                session.deliver(came)
        session.ended.set("over")
        lines += [json.loads(line) async for line in reading]
    position, known = 0, (None, None)
    for line in lines:
        if line["event"] == "dropped":
            position += line["count"]
        elif line["event"] == "webhook":
            assert line["webhook"]["id"] == delivered[position]
            position += 1
        elif line["event"] == "presence":
            known = (line["humans"], line["bots"])
    assert position == len(delivered)
    assert known == (session.presence.humans, session.presence.bots)
    assert lines[-1] == {"event": "leave", "reason": "over"}


async def test_by_default_stdin_is_one_line_and_the_end_of_file_byte_for_byte(tmp_path: Path) -> None:
    fired = webhook("room.client.joined", id="j1")
    launch = launcher(
        command_assistant(["sh", "-c", f"cat > {tmp_path}/told"], None, False, False),
        grace=LONG,
        deadline=lambda: boot_time() + LONG,
    )
    with KINDS["sqlite"](tmp_path) as place:
        async with Supervised(place.replica(), launch=launch) as one:
            await add(one, fired)
            await one.ask(webhook="j1")
            assert (await one.reaches(ENDED)).reason == "it left the room"
    first = {
        "roomUrl": "https://acme.whereby.com/visit-1",
        "roomName": "/visit-1",
        "subdomain": "acme",
        "attempt": 1,
        "webhook": json.loads(fired.raw),
    }
    assert (tmp_path / "told").read_bytes() == json.dumps(first).encode() + b"\n"


@pytest.mark.parametrize("stdin", ["lines", "", None, True, ["stream"]])
def test_another_value_for_stdin_is_refused_with_the_two_that_there_are(stdin: Any) -> None:
    with pytest.raises(RegistrationError, match=r'write stdin="line" .* or stdin="stream"'):
        Trigger().assistant_command(["node", "assistant.mjs"], stdin=stdin)
