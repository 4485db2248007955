"""A trigger's life in a program: started, stopped and drained, from anywhere."""

import asyncio
import gc
import logging
import signal
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.http import SECRET, ask, connected, delivery, request
from tests.support.stored import stored
from tests.support.until import eventually, until
from whereby_trigger import (
    TRIGGER_EVENT_SUCCESS,
    AddressError,
    LifecycleError,
    StoreError,
    Trigger,
    TriggerSuccess,
    lifecycle,
)
from whereby_trigger.lifecycle import LIFE, Cause, Phase
from whereby_trigger.store import State
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

JOINED = webhook("room.client.joined", room="/visit-1", id="a1").raw
Make = Callable[..., Trigger]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/webhooks.db"


@pytest.fixture
def make(url: str) -> Make:
    """Build a trigger that fires for everybody who joins, on a free port of this machine."""

    def make_one(**settings: Any) -> Trigger:
        defaults = {"store": url, "secret": SECRET, "host": "127.0.0.1", "port": 0}
        return Trigger(webhook_triggers={"room.client.joined": lambda: True}, **{**defaults, **settings})

    return make_one


@pytest.fixture
def trigger(make: Make) -> Trigger:
    return make()


async def status(trigger: Trigger, data: bytes) -> int:
    answer = await ask(trigger.port, data)
    assert answer is not None
    return answer.status


async def is_deaf(port: int) -> bool:
    try:
        await ask(port, request())
    except ConnectionError:
        return True
    return False


class Meeting:
    """A listener that stays until `over` is set, and records that it was called and how it ended."""

    def __init__(self, trigger: Trigger) -> None:
        self.joined, self.over = asyncio.Event(), asyncio.Event()
        self.ended = ""
        trigger.on(TRIGGER_EVENT_SUCCESS, self.attend)

    async def attend(self, success: TriggerSuccess) -> None:
        self.joined.set()
        try:
            await self.over.wait()
            self.ended = "over"
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise


async def test_within_its_block_a_trigger_receives_and_after_it_nobody_listens(trigger: Trigger, url: str) -> None:
    async with trigger as entered:
        assert entered is trigger
        port = trigger.port
        assert port > 0
        assert await status(trigger, delivery(JOINED)) == 200
    assert await is_deaf(port)
    assert [(record.id, record.state) for record in await asyncio.to_thread(stored, url)] == [("a1", State.FIRED)]


async def test_a_block_that_ends_at_once_leaves_nobody_listening(trigger: Trigger) -> None:
    async with trigger:
        port = trigger.port
    assert await is_deaf(port)


async def test_a_trigger_can_be_started_again_and_again(trigger: Trigger, url: str) -> None:
    for n in range(3):
        async with trigger:
            assert await status(trigger, delivery(webhook("room.client.joined", id=str(n)).raw)) == 200
    assert [record.state for record in await asyncio.to_thread(stored, url)] == [State.FIRED] * 3


def test_a_trigger_can_be_started_again_in_another_event_loop(trigger: Trigger, url: str) -> None:
    async def serve_one(id: str) -> None:
        async with trigger:
            assert await status(trigger, delivery(webhook("room.client.joined", id=id).raw)) == 200

    for id in ("a", "b"):
        asyncio.run(serve_one(id))
    assert [record.state for record in stored(url)] == [State.FIRED] * 2


async def test_a_trigger_runs_once_at_a_time(trigger: Trigger) -> None:
    async with trigger:
        with pytest.raises(LifecycleError, match="running already: stop it first"):
            await trigger.serve()
        assert await status(trigger, request()) == 200


async def test_of_two_starts_at_once_one_is_refused(trigger: Trigger) -> None:
    both = await asyncio.gather(trigger.__aenter__(), trigger.__aenter__(), return_exceptions=True)
    try:
        assert [type(one) for one in both] == [Trigger, LifecycleError]
    finally:
        await trigger.__aexit__(None, None, None)


async def test_a_start_that_fails_leaves_the_port_and_the_trigger_free(make: Make, tmp_path: Path, url: str) -> None:
    trigger = make(store=f"sqlite:///{tmp_path}/missing/webhooks.db")
    for _ in range(2):
        with pytest.raises(StoreError, match="does not exist"):
            await trigger.serve()
    trigger.override({"store": url})
    async with trigger:
        other = make(port=trigger.port, store=f"sqlite:///{tmp_path}/other.db")
        with pytest.raises(AddressError, match="in use"):
            await other.serve()
    assert not (tmp_path / "other.db").exists()


def stop_in_a_thread(trigger: Trigger) -> None:
    thread = threading.Thread(target=trigger.stop)
    thread.start()
    thread.join()


@pytest.mark.parametrize("end", [stop_in_a_thread, lambda _: signal.raise_signal(signal.SIGTERM)], ids=["stop", "TERM"])
async def test_an_end_that_comes_in_the_moment_of_the_opening_is_not_lost(
    trigger: Trigger, monkeypatch: pytest.MonkeyPatch, end: Callable[[Trigger], None]
) -> None:
    came: list[Phase] = []

    class Interrupted(dict[Phase, Any]):
        def __getitem__(self, phase: Phase) -> Any:
            if phase is Phase.OPENING and not came:
                came.append(phase)
                end(trigger)
            return super().__getitem__(phase)

    monkeypatch.setattr(lifecycle, "LIFE", Interrupted(LIFE))
    async with asyncio.timeout(15):
        await trigger.serve()
    assert came


async def test_an_exception_in_the_block_comes_out_of_it_after_the_drain(trigger: Trigger) -> None:
    meeting = Meeting(trigger)
    ports = []

    async def run() -> None:
        async with trigger:
            ports.append(trigger.port)
            assert await status(trigger, delivery(JOINED)) == 200
            await meeting.joined.wait()
            raise KeyError("mine")

    running = asyncio.create_task(run())
    await eventually(lambda: ports)
    await eventually(lambda: is_draining(ports[0]))
    assert not running.done()
    meeting.over.set()
    with pytest.raises(KeyError, match="mine"):
        await running
    assert meeting.ended == "over"
    assert await is_deaf(ports[0])


async def test_a_drain_needs_no_file_of_a_setting_any_more(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    monkeypatch.setenv("WHEREBY_WEBHOOK_SECRET_FILE", str(file))
    trigger = make(secret=None)
    meeting = Meeting(trigger)

    async def run() -> None:
        async with trigger:
            assert await status(trigger, delivery(JOINED)) == 200
            await meeting.joined.wait()
            file.unlink()

    running = asyncio.create_task(run())
    await meeting.joined.wait()
    await eventually(lambda: is_draining(trigger.port))
    meeting.over.set()
    await running
    assert meeting.ended == "over"


async def test_a_drain_that_is_cancelled_closes_everything_all_the_same(trigger: Trigger) -> None:
    meeting = Meeting(trigger)
    serving = asyncio.create_task(trigger.serve())
    await eventually(lambda: trigger.port)
    port = trigger.port
    assert await status(trigger, delivery(JOINED)) == 200
    await meeting.joined.wait()
    serving.cancel()
    await eventually(lambda: is_draining(port))
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert meeting.ended == "cancelled"
    assert await is_deaf(port)
    async with trigger:
        assert await status(trigger, request()) == 200


async def test_while_draining_deliveries_are_stored_answered_and_decided_and_the_port_closes_last(
    trigger: Trigger, url: str
) -> None:
    meeting = Meeting(trigger)
    serving = asyncio.create_task(trigger.serve())
    await eventually(lambda: trigger.port)
    port = trigger.port
    assert await status(trigger, request("GET", "/readyz")) == 200
    assert await status(trigger, delivery(JOINED)) == 200
    await meeting.joined.wait()
    trigger.stop()
    await eventually(lambda: is_draining(port))
    assert await status(trigger, request("GET", "/livez")) == 200
    assert await status(trigger, delivery(webhook("room.client.joined", room="/late", id="late").raw)) == 200
    await eventually(lambda: asyncio.to_thread(has_state, url, "late", State.FIRED))
    assert not serving.done()
    meeting.over.set()
    await asyncio.wait_for(serving, 10)
    assert await is_deaf(port)
    assert {record.state for record in await asyncio.to_thread(stored, url)} == {State.FIRED}


async def test_a_drain_ends_at_its_deadline_and_cancels_who_is_late(make: Make) -> None:
    trigger = make(drain_timeout=0.3)
    meeting = Meeting(trigger)
    async with trigger:
        assert await status(trigger, delivery(JOINED)) == 200
        await meeting.joined.wait()
    assert meeting.ended == "cancelled"


async def test_stop_ends_serve_from_any_thread_and_as_often_as_it_is_called(trigger: Trigger) -> None:
    serving = asyncio.create_task(trigger.serve())
    await eventually(lambda: trigger.port)
    threads = [threading.Thread(target=trigger.stop) for _ in range(5)]
    for thread in threads:
        thread.start()
    trigger.stop()
    await asyncio.wait_for(serving, 10)
    for thread in threads:
        thread.join()


async def test_stop_before_the_start_and_after_the_end_does_nothing(trigger: Trigger) -> None:
    trigger.stop()
    async with trigger:
        assert await status(trigger, request()) == 200
    trigger.stop()
    async with trigger:
        assert await status(trigger, request()) == 200


def test_stop_after_the_loop_is_closed_does_nothing(trigger: Trigger) -> None:
    async def run() -> None:
        async with trigger:
            pass

    asyncio.run(run())
    trigger.stop()


def test_start_blocks_off_the_main_thread_until_stop_and_takes_no_signals(trigger: Trigger, url: str) -> None:
    import signal

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    trigger.on("room.client.joined", lambda: None)
    thread = threading.Thread(target=trigger.start)
    thread.start()
    try:
        until(lambda: trigger.port)
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
        assert asyncio.run(status(trigger, delivery(JOINED))) == 200
    finally:
        trigger.stop()
        thread.join(10)
    assert not thread.is_alive()
    assert [record.state for record in stored(url)] == [State.FIRED]


async def test_start_in_a_running_loop_is_an_error_that_names_the_way(trigger: Trigger) -> None:
    with pytest.raises(LifecycleError, match=r"await trigger\.serve\(\).*async with trigger:"):
        trigger.start()


def test_start_warns_where_nothing_listens(trigger: Trigger) -> None:
    stop_once_started(trigger)
    with pytest.warns(UserWarning, match="lines after it have not run") as caught:
        trigger.start()
    assert caught[0].filename == __file__


def test_start_does_not_warn_where_something_listens(trigger: Trigger) -> None:
    trigger.on(TRIGGER_EVENT_SUCCESS, lambda: None)
    stop_once_started(trigger)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trigger.start()


async def test_one_line_at_the_start_says_what_there_is_to_know(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "whereby_trigger")
    async with make(path="/hook") as trigger:
        started = [record.getMessage() for record in caplog.records if "predicates for" in record.getMessage()]
        port = trigger.port
    where = f"http://127.0.0.1:{port}/hook, store {tmp_path}/webhooks.db"
    assert started == [f"{where}, predicates for room.client.joined, signed deliveries"]


async def test_ipv6_is_served_and_its_address_can_be_pasted(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "whereby_trigger")
    trigger = make(host="::1")
    try:
        await trigger.__aenter__()
    except AddressError:
        pytest.skip("this machine has no IPv6")
    try:
        answer = await ask(trigger.port, delivery(JOINED), host="::1")
    finally:
        await trigger.__aexit__(None, None, None)
    assert answer is not None
    assert answer.status == 200
    assert "http://[::1]:" in caplog.text


async def test_without_a_secret_only_this_machine_is_served(make: Make) -> None:
    trigger = make(secret=None, host=None)
    async with trigger:
        assert await status(trigger, request("POST", "/", [], JOINED)) == 200
        tunnelled = [("X-Forwarded-For", "203.0.113.9")]
        assert await status(trigger, request("POST", "/", tunnelled, JOINED)) == 401
        assert await status(trigger, request("POST", "/", [], JOINED, host="abc.ngrok.app")) == 401
        assert await status(trigger, request("POST", "/", [], b"{}")) == 400


async def test_a_trigger_leaves_no_task_thread_or_open_file_behind(trigger: Trigger) -> None:
    async def run_once(id: str) -> None:
        async with trigger, connected(trigger.port) as connection:
            assert await connection.ask(delivery(webhook("room.client.joined", id=id).raw)) is not None

    # Such as the thread that writes a log, which stays.
    of_earlier_tests = set(threading.enumerate())

    def left() -> tuple[int, set[str], int]:
        gc.collect()
        threads = set(threading.enumerate()) - of_earlier_tests
        names = {thread.name for thread in threads if thread.name.startswith("whereby")}
        return len(asyncio.all_tasks()), names, len(list(Path("/proc/self/fd").iterdir()))

    await run_once("first")
    await eventually(lambda: not left()[1])
    before = left()
    for n in range(3):
        await run_once(str(n))

    def nothing_more() -> bool:
        # Not equal: something left by an earlier test of this process may end meanwhile.
        tasks, threads, files = left()
        return tasks <= before[0] and threads <= before[1] and files <= before[2]

    await eventually(nothing_more)


def stop_once_started(trigger: Trigger) -> None:
    def wait_and_stop() -> None:
        until(lambda: trigger.port)
        trigger.stop()

    threading.Thread(target=wait_and_stop).start()


async def is_draining(port: int) -> bool:
    answer = await ask(port, request("GET", "/readyz"))
    assert answer is not None
    return answer.status == 503


def has_state(url: str, id: str, state: State) -> bool:
    return any((record.id, record.state) == (id, state) for record in stored(url))


# The table of its phases


def test_every_phase_and_every_cause_is_in_the_table_and_each_life_can_end() -> None:
    assert set(LIFE) == set(Phase)
    assert {cause for causes in LIFE.values() for cause in causes} == set(Cause)
    for phase in set(Phase) - {Phase.IDLE}:
        assert Phase.CLOSED in reached_from(phase)


def reached_from(phase: Phase) -> set[Phase]:
    reached, found = set[Phase](), {phase}
    while found - reached:
        reached |= found
        found = {after for before in reached for after in LIFE[before].values()}
    return reached


def test_only_a_trigger_that_is_idle_or_closed_can_be_started() -> None:
    assert {phase for phase, causes in LIFE.items() if Cause.START in causes} == {Phase.IDLE, Phase.CLOSED}


@pytest.mark.parametrize("first", [Phase.OPENING, Phase.SERVING])
def test_a_first_signal_drains_and_a_second_ends(first: Phase) -> None:
    assert LIFE[first][Cause.SIGNAL] is Phase.DRAINING
    assert LIFE[Phase.DRAINING][Cause.SIGNAL] is Phase.ENDING


async def test_a_trigger_that_is_stopped_while_it_opens_ends_and_can_be_started_again(trigger: Trigger) -> None:
    for _ in range(2):
        serving = asyncio.create_task(trigger.serve())
        await asyncio.sleep(0)
        with pytest.raises(LifecycleError, match="running already"):
            await trigger.serve()
        trigger.stop()
        await asyncio.wait_for(serving, 10)


async def test_serving_that_is_cancelled_while_it_opens_is_cancelled_and_can_be_started_again(trigger: Trigger) -> None:
    serving = asyncio.create_task(trigger.serve())
    await asyncio.sleep(0)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    async with trigger:
        assert await status(trigger, request()) == 200
