"""`events`: what was received and decided is listed, shown and replayed, beside a running server and without one."""

import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Call
from tests.support.arrivals import arrival, decided, decision, held, holding
from tests.support.process import Process, run, whereby_trigger
from tests.support.programs import HUMANS_JOIN, write
from tests.support.stored import stored
from tests.support.terminal import run_on_terminal
from tests.support.until import AT_ONCE, until
from tests.support.whereby import deliver
from whereby_trigger.cli.events import MOST_AT_ONCE, Decided
from whereby_trigger.store import Query, Record, State
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.testing import webhook

PERSON = "Ada Lovelace"
JOINED = webhook("room.client.joined", id="a1-joined", room="/visit-1", display_name=PERSON)
BOT = webhook("room.client.joined", id="a2-bot", room="/Größe 1", role_name="recorder", display_name=PERSON)
ENDED = webhook("room.session.ended", id="b1-ended", room="/visit-2")
RECORDED = webhook("recording.finished", id="b2-recorded")
ODD = b'{"id": "c1-odd\\u0000", "data": {"displayName": "%s"}}' % PERSON.encode()
RETURNS_NOTHING = HUMANS_JOIN.replace("return is_human(webhook)", "is_human(webhook)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a program, and a closed store with one webhook of each kind."""
    folder = tmp_path_factory.mktemp("events")
    write(folder, HUMANS_JOIN)
    with Process(whereby_trigger("start", "--port", "0", "--secret", "s"), cwd=folder) as process:
        url = f"http://127.0.0.1:{process.port()}/"
        for sent in (JOINED, BOT, ENDED, RECORDED, RECORDED, ODD):
            assert deliver(url, sent, "s").status == 200
        until(lambda: not [record for record in stored(store_of(folder)) if record.state == "pending"])
        assert process.stop() == 0
    return folder


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """Return a folder with a copy of that program and store, which a test may change."""
    for name in ("app.py", "whereby-trigger.db"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    return tmp_path


@pytest.fixture
def server(copy: Path) -> Iterator[Process]:
    with Process(whereby_trigger("start", "--port", "0", "--secret", "s"), cwd=copy) as process:
        process.port()
        yield process


def store_of(folder: Path) -> str:
    return f"sqlite:///{folder}/whereby-trigger.db"


def listed(call: Call, folder: Path, *options: str) -> list[dict[str, Any]]:
    ended = call("events", "list", "--json", "--store", store_of(folder), *options)
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def ids(call: Call, folder: Path, *options: str) -> list[str]:
    return [fields["id"][:2] for fields in listed(call, folder, *options)]


def states(folder: Path) -> dict[str, str]:
    return {record.id[:2]: str(record.state) for record in stored(store_of(folder))}


def test_the_list_is_one_json_object_a_line_newest_first(call: Call, folder: Path) -> None:
    newest, recorded, *_, joined = listed(call, folder)
    assert newest["state"] == "quarantined"
    assert joined == {
        "id": "a1-joined",
        "type": "room.client.joined",
        "room": "acme.whereby.com/visit-1",
        "state": "fired",
        "reason": "predicate people returned True",
        "attempts": 1,
        "deliveries": 1,
        "received_at": joined["received_at"],
        "decided_at": joined["decided_at"],
        "due_at": None,
        "assistant": None,
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", joined["received_at"])
    assert (recorded["room"], recorded["deliveries"]) == (None, 2)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--state", "unhandled"], ["b2", "b1"]),
        (["--type", "room.client.joined"], ["a2", "a1"]),
        (["--type", "room.client.joined", "--state", "skipped"], ["a2"]),
        (["--room", "/visit-1"], ["a1"]),
        (["--room", "visit-1"], ["a1"]),
        (["--room", "ACME.whereby.com/visit-1"], ["a1"]),
        (["--room", "https://acme.whereby.com/visit-1?roomKey=x"], ["a1"]),
        (["--room", "/Größe 1"], ["a2"]),
        (["--room", "acme.whereby.com/Gr%C3%B6%C3%9Fe%201"], ["a2"]),
        (["--room", "other.whereby.com/visit-1"], []),
        (["--limit", "1", "--state", "unhandled"], ["b2"]),
    ],
)
def test_the_list_is_narrowed_by_options(call: Call, folder: Path, options: list[str], found: list[str]) -> None:
    assert ids(call, folder, *options) == found


@pytest.mark.parametrize("room", ["\udcff", "acme.whereby.com/\udcff"])
def test_a_room_that_is_no_text_names_none(call: Call, folder: Path, room: str) -> None:
    assert ids(call, folder, "--room", room) == []


def test_a_type_that_is_misspelt_gets_a_suggestion(call: Call, folder: Path) -> None:
    ended = call("events", "list", "--store", store_of(folder), "--type", "room.client.join")
    assert (ended.returncode, ended.stdout) == (0, "")
    assert "did you mean 'room.client.joined'?" in ended.stderr


def test_the_store_is_that_of_the_program_or_of_the_environment(call: Call, folder: Path, tmp_path: Path) -> None:
    assert call("events", "list", env={"WHEREBY_TRIGGER_STORE": store_of(folder)}).stdout.count("\n") == 6
    write(tmp_path, f"from whereby_trigger import Trigger\nt = Trigger(store={store_of(folder)!r})", "named.py")
    assert call("events", "list", "named.py", env={"WHEREBY_TRIGGER_STORE": "sqlite:///no.db"}).returncode == 0
    assert call("events", "show", "a1", "--app", "named.py").returncode == 0


def test_a_list_shows_nothing_of_a_body_and_show_shows_all_of_it(call: Call, folder: Path) -> None:
    for option in ([], ["--json"]):
        assert PERSON not in call("events", "list", "--store", store_of(folder), *option).stdout
        assert PERSON in call("events", "show", "a1-joined", "--store", store_of(folder), *option).stdout


def test_show_gives_everything_as_json(call: Call, folder: Path) -> None:
    shown = json.loads(call("events", "show", "a1", "--json", "--store", store_of(folder)).stdout)
    assert json.loads(shown["body"]) == json.loads(JOINED.raw)
    assert (shown["errors"], shown["id"], shown["state"]) == ([], "a1-joined", "fired")
    assert len(shown["replica"]) == 32


def test_show_gives_everything_for_people(call: Call, folder: Path) -> None:
    head, _, body = call("events", "show", "a1", "--store", store_of(folder)).stdout.partition("\n\n")
    assert json.loads(body) == json.loads(JOINED.raw)
    assert "state       fired\nreason      predicate people returned True\n" in head


def test_a_body_that_is_nested_too_deeply_is_shown_as_it_came(call: Call, copy: Path, server: Process) -> None:
    port = int(re.search(r":([0-9]+)/", server.output)[1])  # type: ignore[index]
    deep = b'{"id": "e1-deep", "data": %s%s}' % (b"[" * 20_000, b"]" * 20_000)
    assert deliver(f"http://127.0.0.1:{port}/", deep, "s").status == 200
    (quarantined,) = [record for record in stored(store_of(copy)) if record.body == deep]
    ended = call("events", "show", quarantined.id, "--store", store_of(copy))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.endswith(f"\n\n{deep.decode()}\n")


@pytest.mark.parametrize(
    ("id", "says"),
    [("z", "has an id that begins with 'z': see `events list`"), ("a", "several ids begin with 'a'")],
)
@pytest.mark.parametrize("verb", ["show", "replay"])
def test_an_id_that_names_no_webhook_or_several_exits_1(
    call: Call, folder: Path, verb: str, id: str, says: str
) -> None:
    ended = call("events", verb, id, "--store", store_of(folder))
    assert ended.returncode == 1
    assert says in ended.stderr
    assert ended.stdout == ""


def test_listing_creates_no_file_and_changes_none(call: Call, folder: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    listed(call, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert call("events", "list").returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_listing_an_empty_file_says_what_creates_a_store(call: Call, tmp_path: Path) -> None:
    (tmp_path / "whereby-trigger.db").touch()
    ended = call("events", "list")
    assert ended.returncode == 2
    assert "run `whereby-trigger db migrate`, or start the trigger once" in ended.stderr
    assert (tmp_path / "whereby-trigger.db").read_bytes() == b""


def test_a_running_server_decides_a_replay_at_once(copy: Path, server: Process) -> None:
    write(copy, HUMANS_JOIN)
    ended = run("events", "replay", "a1", cwd=copy)
    replayed = time.monotonic()
    assert (ended.returncode, ended.stdout) == (0, "a1-joined\n")
    assert "1 to be replayed: at once if a trigger runs" in ended.stderr
    server.line("joining https://acme.whereby.com/visit-1 attempt 1")
    assert time.monotonic() - replayed < AT_ONCE
    assert json.loads(server.line("a1-joined"))["decision"] == "fired"


def test_a_replay_without_a_server_is_decided_at_the_next_start(copy: Path) -> None:
    assert run("events", "replay", "--state", "skipped", "--yes", cwd=copy).stdout == "a2-bot\n"
    assert states(copy)["a2"] == "pending"
    assert run("events", "list", cwd=copy).returncode == 0
    with Process(whereby_trigger("start", "--port", "0", "--secret", "s"), cwd=copy) as process:
        assert json.loads(process.line("a2-bot"))["decision"] == "skipped"


def test_what_failed_is_replayed_by_its_state_once_the_program_is_mended(copy: Path) -> None:
    write(copy, RETURNS_NOTHING)
    run("events", "replay", "a1", cwd=copy)
    with Process(whereby_trigger("start", "--port", "0", "--secret", "s"), cwd=copy) as process:
        assert (
            json.loads(process.line("a1-joined"))["reason"] == "predicate people returned None: is a `return` missing?"
        )
        assert process.stop() == 0
    write(copy, HUMANS_JOIN)
    assert run("events", "replay", "--state", "failed", "--json", "--yes", cwd=copy).stdout == '{"id": "a1-joined"}\n'
    with Process(whereby_trigger("start", "--port", "0", "--secret", "s"), cwd=copy) as process:
        process.line("joining https://acme.whereby.com/visit-1")


def test_a_replay_of_nothing_says_so(call: Call, copy: Path) -> None:
    ended = call("events", "replay", "--state", "failed", "--store", store_of(copy))
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr == "Nothing to replay: none of these webhooks is decided or held.\n"


def test_a_replay_narrows_the_ids_by_the_options(call: Call, copy: Path) -> None:
    ended = call("events", "replay", "a1", "a2", "--state", "skipped", "--store", store_of(copy))
    assert ended.stdout == "a2-bot\n"
    assert states(copy) == {"a1": "fired", "a2": "pending", "b1": "unhandled", "b2": "unhandled"} | {
        record.id[:2]: "quarantined" for record in stored(store_of(copy))[-1:]
    }


def test_on_a_terminal_ids_are_short_and_the_reason_is_broken_at_words(folder: Path) -> None:
    shown = run_on_terminal("events", "list", "--state", "skipped", cwd=folder, columns=100, env={"NO_COLOR": "1"})
    _, *rows = shown.splitlines()
    assert re.match(r"\d\d-\d\d \d\d:\d\d:\d\d  a2-bot  room\.client\.joined  ", rows[0])
    assert len(rows) > 1
    reason = " ".join(row[rows[0].index("predicate") :].strip() for row in rows)
    assert reason == "predicate people returned False (a bot's own event: is_human)"


def test_a_name_cut_in_the_middle_of_an_emoji_is_shown_as_it_came_and_replayed(
    call: Call, copy: Path, server: Process
) -> None:
    port = int(re.search(r":([0-9]+)/", server.output)[1])  # type: ignore[index]
    cut = webhook("room.client.joined", id="d1", display_name="Zo\ud83d")
    assert deliver(f"http://127.0.0.1:{port}/", cut, "s").status == 200
    until(lambda: states(copy).get("d1") == "fired")
    assert r'"displayName": "Zo\ud83d"' in call("events", "show", "d1", "--store", store_of(copy)).stdout
    shown = json.loads(call("events", "show", "d1", "--json", "--store", store_of(copy)).stdout)
    assert shown["body"] == cut.raw.decode()
    assert call("events", "replay", "d1", "--store", store_of(copy)).stdout == "d1\n"
    until(lambda: states(copy).get("d1") == "fired")


def test_what_a_webhook_carries_steers_no_terminal(call: Call, copy: Path, server: Process) -> None:
    port = int(re.search(r":([0-9]+)/", server.output)[1])  # type: ignore[index]
    odd = json.dumps({"id": "d1\u001b[2J", "type": "x\u001b[2J\u009b", "data": {"n": "\u009b2J"}}).encode()
    assert deliver(f"http://127.0.0.1:{port}/", odd, "s").status == 200
    until(lambda: states(copy).get("d1") == "unhandled")
    for arguments in (["list"], ["show", "d1"], ["list", "--json"]):
        shown = call("events", *arguments, "--store", store_of(copy)).stdout
        assert "d1" in shown
        assert not set(shown) & {"\u001b", "\u009b"}


def test_follow_shows_each_webhook_as_it_is_decided_until_interrupted(copy: Path) -> None:
    start = whereby_trigger("start", "--port", "0", "--secret", "s")
    follow = whereby_trigger("events", "list", "--follow", "--state", "skipped", "--limit", "1", "--json")
    with Process(start, cwd=copy) as server, Process(follow, cwd=copy) as following:
        url = f"http://127.0.0.1:{server.port()}/"
        assert json.loads(following.line("a2-bot"))["state"] == "skipped"
        assert deliver(url, webhook("room.client.joined", id="d1-fires", room="/visit-1"), "s").status == 200
        assert deliver(url, webhook("room.client.joined", id="d2-bot", role_name="recorder"), "s").status == 200
        assert json.loads(following.line("d2-bot"))["state"] == "skipped"
        assert "d1-fires" not in following.output
        assert following.stop(signal.SIGINT) == 130
        shown = [json.loads(line)["id"] for line in following.output.splitlines() if line.startswith("{")]
        assert shown == ["a2-bot", "d2-bot"]


@pytest.mark.anyio
async def test_what_is_followed_is_shown_once_when_it_is_decided_however_late(tmp_path: Path) -> None:
    store = SqliteStore(f"sqlite:///{tmp_path}/webhooks.db")
    await store.open(lambda: None)
    try:
        for id in ("old", "older"):
            await decided(store, id)
        late = await store.add(arrival("late"))
        following = Decided(store, Query(limit=1))

        async def new() -> list[str]:
            return [record.id for record in await following.new()]

        assert await new() == ["older"]
        assert await new() == []
        for n in range(MOST_AT_ONCE + 1):
            await store.add(arrival(f"{n}", state=State.QUARANTINED, reason="odd"))
        assert len(await new()) == MOST_AT_ONCE
        await store.decide(decision(late.seq, "late"))
        await decided(store, "new")
        assert await new() == ["late", "new"]
        assert await new() == []
        await store.replay(Query(ids=("new",)), 1.0)
        assert await new() == []
        (again,) = await store.find(Query(ids=("new",)))
        assert again.state is State.PENDING
        await store.take_over()
        await store.decide(decision((await store.pending(0, 1))[0].seq, "new"))
        assert await new() == ["new"]
    finally:
        await store.close()


@pytest.mark.anyio
async def test_to_follow_says_if_more_came_at_once_than_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.cli.events.MOST_AT_ONCE", 3)
    store = SqliteStore(f"sqlite:///{tmp_path}/webhooks.db")
    await store.open(lambda: None)
    try:
        following, said = Decided(store, Query(limit=1)), list[bool]()
        for count in (4, 2, 3, 4, 0):
            for n in range(count):
                await store.add(arrival(f"{len(said)}-{n}", state=State.QUARANTINED, reason="odd"))
            await following.new()
            said.append(following.may_have_missed)
        assert said == [False, False, False, True, False]
    finally:
        await store.close()


class CountingStore(SqliteStore):
    """Count the webhooks that are looked up by their ids."""

    looked_up = 0

    async def find(self, query: Query) -> list[Record]:
        self.looked_up += len(query.ids or ())
        return await super().find(query)


@pytest.mark.anyio
async def test_to_follow_beside_very_many_that_wait_reads_a_few_of_them_at_each_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them were read twice a second, with their bodies, from a database that is busy then."""
    monkeypatch.setattr("whereby_trigger.cli.events.MOST_AT_ONCE", 5)
    store, waiting = CountingStore(f"sqlite:///{tmp_path}/webhooks.db"), list[int]()
    await store.open(lambda: None)
    try:
        following = Decided(store, Query(limit=1))
        for n in range(100):
            waiting.append((await store.add(arrival(f"{n:02}"))).seq)
            assert await following.new() == []
        before = store.looked_up
        assert await following.new() == []
        assert store.looked_up - before == 5
        await store.decide(decision(waiting[50], "50"))
        shown = [[record.id for record in await following.new()] for _ in range(100 // 5)]
        assert [ids for ids in shown if ids] == [["50"]]
        for n in range(100):
            await store.decide(decision(waiting[n], f"{n:02}"))
        assert [record.id for record in await following.new()] == [f"{n:02}" for n in range(100) if n != 50]
    finally:
        await store.close()


@pytest.mark.anyio
async def test_what_becomes_of_a_held_webhook_is_followed_too(tmp_path: Path) -> None:
    store = SqliteStore(f"sqlite:///{tmp_path}/webhooks.db")
    await store.open(lambda: None)
    try:
        everything, fired = Decided(store, Query(limit=9)), Decided(store, Query(state=State.FIRED, limit=9))
        assert (await everything.new(), await fired.new()) == ([], [])
        seq = await held(store, "held")
        assert [record.state for record in await everything.new()] == [State.HELD]
        assert (await everything.new(), await fired.new()) == ([], [])
        await store.ask_again([seq])
        assert (await everything.new(), await fired.new()) == ([], [])
        assert await store.hold(holding(seq, "held"))
        assert (await everything.new(), await fired.new()) == ([], [])
        await store.ask_again([seq])
        assert await store.decide(decision(seq, "held"))
        assert [record.state for record in await everything.new()] == [State.FIRED]
        assert [record.state for record in await fired.new()] == [State.FIRED]
        assert (await everything.new(), await fired.new()) == ([], [])
    finally:
        await store.close()


def test_to_follow_until_a_time_is_a_wrong_call(call: Call) -> None:
    assert "leave out --until" in call("events", "list", "--follow", "--until", "22:14").stderr
