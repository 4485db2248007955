"""A command in its room, from the supervisor's side: what it gets, and that its run ends with the process."""

import asyncio
import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.assist.programs import child
from tests.support.arrivals import arrival
from tests.support.presence import Presence
from tests.support.supervised import LONG, Assistants, Supervised
from tests.support.until import eventually
from tests.webhook.test_json_verdicts import TAKEN, body, data
from whereby_trigger.assist import CoroutineAssistant, command_assistant, launcher
from whereby_trigger.assist.runners import Launch, Run, RunResult
from whereby_trigger.clock import boot_time
from whereby_trigger.store import RoomState, RunOutcome, RunQuery
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.testing import webhook
from whereby_trigger.webhook import decode

pytestmark = pytest.mark.anyio

WAITING, LIVE, ENDED = RoomState.WAITING, RoomState.LIVE, RoomState.ENDED


def launch(argv: list[str]) -> Launch:
    return launcher(command_assistant(argv, None, False, False), grace=LONG, deadline=lambda: boot_time() + LONG)


async def test_a_command_that_is_cut_off_while_it_is_ending_is_gone_before_its_slot_is_free(
    tmp_path: Path, presence: Presence
) -> None:
    stays = launch(child(presence, "A", "--ignore-term"))
    async with Supervised(SqliteStore(f"sqlite:///{tmp_path}/rooms.db"), launch=stays) as one:
        await one.ask()
        room = await one.reaches(LIVE)
        assert room.pid is not None
        await asyncio.to_thread(presence.line, "here")
        await one.stop()
        await asyncio.to_thread(presence.line, "was told to leave")
        await one.supervisor.cut_off("the lease has run out")
        assert not one.supervisor.running
        with pytest.raises(ProcessLookupError):
            os.kill(room.pid, 0)
        assert (await one.reaches(ENDED)).reason == "stopped by hand"


async def test_a_command_that_runs_while_its_run_fails_is_gone_before_its_room_gets_another(
    tmp_path: Path, presence: Presence
) -> None:
    """What is done once it runs may fail, as a handler of the log does, or for a lack of memory."""
    pids: list[int] = []

    def launched(pid: int | None) -> None:
        pids.append(pid or 0)
        raise RuntimeError("a handler of the log failed")

    stays = launch(child(presence, "A", "--ignore-term"))

    async def launch_badly(run: Run, _: Callable[[int | None], None]) -> RunResult:
        return await stays(run, launched)

    async with Supervised(SqliteStore(f"sqlite:///{tmp_path}/rooms.db"), launch=launch_badly) as one:
        await one.ask()
        assert (await one.reaches(WAITING)).reason == "not launched: RuntimeError: restart 1 of 3"
        with pytest.raises(ProcessLookupError):
            os.kill(pids[0], 0)


async def test_a_command_that_had_left_before_a_hand_over_is_not_started_elsewhere(
    tmp_path: Path, presence: Presence
) -> None:
    """Its guard may still be ending what it has left behind."""
    leaves = f"{shlex.join(child(presence, 'A', '--ignore-term'))} & read line <{tmp_path}/leave; exit 0"
    os.mkfifo(tmp_path / "leave")
    runs: list[Run] = []

    async def noted(run: Run, launched: Callable[[int | None], None]) -> RunResult:
        runs.append(run)
        return await launch(["sh", "-c", leaves])(run, launched)

    async with Supervised(SqliteStore(f"sqlite:///{tmp_path}/rooms.db"), launch=noted) as one:
        await one.ask()
        await one.reaches(LIVE)
        await asyncio.to_thread(presence.line, "here")
        await asyncio.to_thread((tmp_path / "leave").write_text, "now\n")
        await eventually(lambda: runs[0].has_left())
        await one.supervisor.hand_over("the replica is draining")
        assert (await one.reaches(ENDED)).reason == "it left the room"


async def test_webhooks_that_a_command_has_no_way_to_read_are_not_kept_for_it(
    tmp_path: Path, presence: Presence
) -> None:
    assistants, runs = Assistants(), {}
    command = launch(child(presence, "A"))
    coroutine = launcher(CoroutineAssistant(assistants.stay), grace=LONG, deadline=lambda: LONG)

    async def either(run: Run, launched: Callable[[int | None], None]) -> RunResult:
        runs[run.session.room_name] = run
        return await (command if run.session.room_name == "/command" else coroutine)(run, launched)

    async with Supervised(SqliteStore(f"sqlite:///{tmp_path}/rooms.db"), launch=either) as one:
        for name in ("command", "coroutine"):
            await one.ask(name)
            await one.reaches(LIVE, name)
        heard = assistants.sessions["coroutine"].webhooks()
        for n in range(2):
            for name in ("command", "coroutine"):
                joined = webhook("room.client.joined", id=f"{name} {n}")
                await one.store.add(arrival(joined.id, body=joined.raw, room=f"acme.whereby.com/{name}"))
            one.supervisor.wake()
            # Once the second is reported, the look that found the first is over, for every room.
            assert (await anext(heard)).id == f"coroutine {n}"
        assert list(runs["/command"].session._unread) == []
        await one.stop("command")
        await one.reaches(ENDED, "command")


async def told(raw: bytes, folder: Path) -> bytes:
    """Start a command because of a webhook, and return what it got on its stdin."""
    keeps = launch(["sh", "-c", f"cat > {folder}/told"])
    id = decode(raw).id
    async with Supervised(SqliteStore(f"sqlite:///{folder}/rooms.db"), launch=keeps) as one:
        await one.store.add(arrival(id, body=raw))
        await one.ask(webhook=id)
        assert (await one.reaches(ENDED)).reason == "it left the room"
    return (folder / "told").read_bytes()


def read_strictly(line: bytes) -> Any:
    """Parse JSON as the strictest parsers do: no JavaScript constants, and no number that is not a double."""

    def refuse(text: str) -> NoReturn:
        raise AssertionError(f"{text[:20]} is not JSON")

    def number(text: str) -> float:
        return refuse(text) if float(text) in (float("inf"), float("-inf")) else float(text)

    read = json.loads(line, parse_constant=refuse, parse_int=number, parse_float=number)
    # Half a surrogate pair cannot be printed, nor read by the strictest parser.
    json.dumps(read, ensure_ascii=False).encode()
    return read


@pytest.mark.parametrize("raw", TAKEN.values(), ids=TAKEN)
async def test_whatever_webhook_fires_a_command_is_told_it_in_a_line_of_json_that_every_parser_reads(
    raw: bytes, tmp_path: Path
) -> None:
    line = await told(raw, tmp_path)
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert read_strictly(line)["webhook"]["id"] == decode(raw).id


async def test_a_webhook_is_told_as_it_was_sent_but_for_numbers_that_no_double_holds(tmp_path: Path) -> None:
    numbers = data(
        huge="1e999", low="-1e999", long="9" * 5000, longest="1" + "0" * 308, large=str(2**64), half="0.5", none="0"
    )
    line = await told(body(x=numbers, note='"ü\\u2028🎥"', known="true"), tmp_path)
    webhook = json.loads(line)["webhook"]
    sent = {"huge": None, "low": None, "long": None, "longest": 10**308, "large": 2**64, "half": 0.5, "none": 0}
    assert webhook == json.loads(body(note='"ü\\u2028🎥"', known="true")) | {"x": sent}


@pytest.mark.parametrize(
    ("code", "state", "reason"),
    [
        (69, RoomState.FAILED, "exited with 69: not worth another try"),
        (75, RoomState.WAITING, "exited with 75: worth another try: restart 1 of 3"),
        (1, RoomState.WAITING, "exited with 1: restart 1 of 3"),
    ],
)
async def test_the_exit_code_of_a_command_says_whether_its_room_gets_it_again(
    code: int, state: RoomState, reason: str, tmp_path: Path
) -> None:
    exits = launch(["sh", "-c", f"echo the key is wrong >&2; exit {code}"])
    async with Supervised(SqliteStore(f"sqlite:///{tmp_path}/rooms.db"), launch=exits) as one:
        await one.ask()
        room = await one.reaches(state, attempt=1)
        assert (room.reason, room.restarts) == (reason, 0 if state is RoomState.FAILED else 1)
        (run,) = await one.store.find_runs(RunQuery())
        assert (run.exit_code, run.output) == (code, "the key is wrong")
        assert run.outcome is (RunOutcome.FAILED if code == 1 else RunOutcome.REFUSED)


async def test_a_command_that_was_asked_to_leave_has_ended_even_if_it_exits_with_69(tmp_path: Path) -> None:
    waits = f"trap 'exit 69' TERM; touch {tmp_path}/ready; while :; do sleep 0.05; done"
    async with Supervised(SqliteStore(f"sqlite:///{tmp_path}/rooms.db"), launch=launch(["sh", "-c", waits])) as one:
        await one.ask()
        await eventually((tmp_path / "ready").exists)
        await one.stop()
        assert (await one.reaches(ENDED)).reason == "stopped by hand"
