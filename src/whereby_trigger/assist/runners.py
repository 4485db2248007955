"""One run of an assistant, as a coroutine or a command, and the state it leaves its room in."""

import asyncio
import json
import traceback
from collections.abc import Callable, Collection, Coroutine, Mapping
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

from whereby_trigger.assist.pipes import Turns
from whereby_trigger.assist.process import Exit, GuardedProcess, StartedTooLate, child_environment
from whereby_trigger.assist.session import (
    Assistant,
    CommandAssistant,
    CoroutineAssistant,
    Session,
    readable_by_all,
    room_events,
)
from whereby_trigger.clock import GUARD_NOTICE, MACHINE, Clock
from whereby_trigger.config import inherited
from whereby_trigger.errors import AssistantError, AssistantRefused, DecodeError, SystemExhausted
from whereby_trigger.leftovers import name_of_run
from whereby_trigger.store import Presence, Room, RoomState, RunOutcome, RunReport
from whereby_trigger.text import storable_text
from whereby_trigger.threads import shortage_now
from whereby_trigger.webhook import Webhook, decode, redacted, room_from_url

BACKOFF: tuple[float, ...] = (1.0, 5.0, 15.0)
"""Seconds before the first, second and third restart of an assistant that failed."""

HANDED_OVER: Final = "handed over by a replica that stopped"


class RunEnd(StrEnum):
    """Name the way in which a run ended."""

    RETURNED = "returned"
    RAISED = "raised"
    REFUSED = "refused"
    CUT_OFF = "cut off"
    EXHAUSTED = "exhausted"
    """The system had no thread, file or memory left for it."""


class RunResult(Struct, frozen=True):
    """Describe how a run ended; `retry` says whether a restart makes sense, `errors` what was raised or printed.

    `exception` is the type that a coroutine raised; a process has an `exit_code`, or the `signal` that ended it.
    """

    how: RunEnd
    reason: str
    retry: bool = True
    errors: tuple[str, ...] = ()
    exception: str | None = None
    exit_code: int | None = None
    signal: int | None = None


OUTCOMES: Final[Mapping[RunEnd, RunOutcome]] = {
    RunEnd.RETURNED: RunOutcome.LEFT,
    RunEnd.RAISED: RunOutcome.FAILED,
    RunEnd.REFUSED: RunOutcome.REFUSED,
    RunEnd.CUT_OFF: RunOutcome.FAILED,
    RunEnd.EXHAUSTED: RunOutcome.EXHAUSTED,
}
"""How a run is recorded that nobody asked to end, by the way in which it ended."""

LONGEST_OUTPUT: Final = 32 * 1024
"""Maximum characters that are recorded of what a run raised or wrote: the last ones."""


def report_of(end: RunResult, *, handing_over: bool) -> RunReport:
    """Return what is recorded of a run, with its text as every store can hold it."""
    try:
        output = storable_text("\n".join(end.errors))
    except MemoryError:
        # The room must be recorded all the same, or it stays ours without an assistant.
        output = ""
    return RunReport(
        outcome=RunOutcome.HANDED_OVER if handing_over else OUTCOMES[end.how],
        exit_code=end.exit_code,
        signal=end.signal,
        exception=None if end.exception is None else storable_text(end.exception),
        output=output if len(output) <= LONGEST_OUTPUT else "…" + output[-LONGEST_OUTPUT:],
    )


class NextState(Struct, frozen=True):
    """Hold the state of a room after a run: `pause` is in seconds, `restarts` counts those used so far."""

    state: RoomState
    reason: str
    restarts: int
    pause: float = 0.0


def next_state(end: RunResult, *, restarts: int, stop: str | None, handing_over: bool) -> NextState:
    """Return the state of a room after a run.

    `stop` is why its assistant was asked to end, if it was; `handing_over` is True if it was ended so that another
    replica can take the room.
    """
    if stop is not None:
        return NextState(RoomState.ENDED, stop, restarts)
    if handing_over:
        return NextState(RoomState.WAITING, HANDED_OVER, restarts)
    if end.how is RunEnd.RETURNED:
        return NextState(RoomState.ENDED, end.reason, restarts)
    if end.how is RunEnd.EXHAUSTED:
        # Another replica may have what this one lacks: it can take the room at once.
        return NextState(RoomState.WAITING, end.reason, restarts)
    if not end.retry:
        return NextState(RoomState.FAILED, end.reason, restarts)
    if restarts >= len(BACKOFF):
        return NextState(RoomState.FAILED, f"{end.reason}, after {restarts} restarts", restarts)
    again = f"{end.reason}: restart {restarts + 1} of {len(BACKOFF)}"
    return NextState(RoomState.WAITING, again, restarts + 1, BACKOFF[restarts])


class Run:
    """Hold a room of this replica, its session, and the tasks that launch and supervise it.

    `stop` is why the assistant was asked to end, `handed_over` whether it was ended so that another replica can take
    the room. It `begins` until its assistant runs. `extend` moves a process assistant's deadline, `has_left` says
    whether it has exited, though its guard may still be ending what it has left behind. `has_reader` is False
    if nobody reads the session's webhooks. `cursor` is the number up to which the session has received all webhooks of
    its room; it starts at the room's own number.
    """

    def __init__(self, room: Room) -> None:
        self.room = room
        self.session = Session(room_from_url(room.url), _decoded(room.body), room.attempt, room.presence, room.owner)
        self.stop: str | None = None
        self.handed_over = False
        self.begins = True
        self.extend: Callable[[float], None] | None = None
        self.has_left: Callable[[], bool] = lambda: False
        self.launched: asyncio.Task[RunResult] | None = None
        self.supervised: asyncio.Task[None] | None = None
        self.has_reader = True
        self.cursor = room.seq
        self._seen: set[int] = set()

    @property
    def log_fields(self) -> dict[str, object]:
        """Return the fields of a log line about it."""
        return dict(self.session.log.extra or {})

    @property
    def ends(self) -> bool:
        """True if the assistant was told to leave, or has returned."""
        return self.session.ended.is_set() or (self.launched is not None and self.launched.done())

    def deliver(self, seq: int, body: bytes, redact: tuple[str, ...] = ()) -> None:
        """Pass a webhook of the room on to the session, without the fields `redact`.

        It is not if it came before the session or was passed on already: what is recent is read at each look.
        """
        if seq <= max(self.cursor, self.room.seq) or seq in self._seen:
            return
        webhook = _decoded(redacted(body, redact))
        if webhook is not None:
            self.session.deliver(webhook)
        # Only now: if there was no memory for it, it comes again.
        self._seen.add(seq)

    def advance(self, cursor: int) -> None:
        """Move the cursor: no webhook with a number up to `cursor` is still to come.

        A store may not know that yet for a number as recent as the session's start, and names a lower one. The first
        call then moves the cursor back, and the session is read together with the others from there on.
        """
        fresh = self.cursor == self.room.seq
        self.cursor = cursor if fresh else max(self.cursor, cursor)
        self._seen = {seq for seq in self._seen if seq > self.cursor}

    def hand_over(self, reason: str) -> None:
        """End the session, so that another replica can take the room, unless the assistant has left it already."""
        self.handed_over = self.handed_over or not self.has_left()
        self.session.ended.set(reason)

    def cut_off(self, reason: str) -> None:
        """End the run now, without waiting for the assistant to return."""
        self.hand_over(reason)
        # How it ended is not waited for.
        self.handed_over = True
        # Only once: a second cancellation would leave behind an assistant that ignored the first.
        if self.launched is not None and not self.launched.cancelling():
            self.launched.cancel()


def _decoded(body: bytes | None) -> Webhook | None:
    try:
        return None if body is None else decode(body)
    except DecodeError:
        return None


TO_UNWIND: Final = 1.0
"""Seconds after which a cancelled assistant that has not returned is named in the log."""


Launch = Callable[[Run, Callable[[int | None], None]], Coroutine[Any, Any, RunResult]]
"""Run an assistant to its end; the callable is called once it runs, with its process id if it has one."""


async def run_coroutine(
    assistant: CoroutineAssistant, session: Session, grace: float, clock: Clock = MACHINE
) -> RunResult:
    """Run a coroutine in a room; once its session has ended, it has `grace` seconds before it is cancelled.

    If it ignores its cancellation it is waited for, since it may still be in the room, and a warning names it.
    """
    run = asyncio.create_task(_guarded(assistant, session), name=f"assistant in {session.room_url}")
    try:
        ended = asyncio.create_task(session.ended.wait())
        try:
            await asyncio.wait({run, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
        if not run.done():
            returned = asyncio.Event()
            run.add_done_callback(lambda _: returned.set())
            await clock.until(returned, clock.boot() + grace)
        if not run.done():
            await _cancel(run, assistant, session)
        return run.result()
    except BaseException:
        # After an error of ours, too, such as a lack of memory: the room may get another assistant from here on.
        await _cancel(run, assistant, session)
        raise


async def _cancel(run: "asyncio.Task[RunResult]", assistant: CoroutineAssistant, session: Session) -> None:
    run.cancel()
    await asyncio.wait({run}, timeout=TO_UNWIND)
    if not run.done():
        session.log.warning(
            "the assistant %s was cancelled but does not return: until it does, its room gets no other assistant and "
            "a drain waits; do not catch CancelledError in it",
            assistant.name,
        )
        await asyncio.wait({run})


async def _guarded(assistant: CoroutineAssistant, session: Session) -> RunResult:
    # A SystemExit that leaves a task would end the loop, and with it every other room's assistant.
    try:
        await assistant.function(session)
    except AssistantRefused as error:
        return RunResult(RunEnd.REFUSED, f"refused: {error.reason}", retry=error.retry)
    except BaseException as error:
        # What it awaited may have been cancelled instead: then it raised this error like any other.
        if isinstance(error, asyncio.CancelledError) and _is_cancelled():
            return RunResult(RunEnd.CUT_OFF, "cancelled: it had not returned in time")
        if (short := shortage_now(error)) is not None:
            return RunResult(RunEnd.EXHAUSTED, f"out of {short}", errors=(_in_full(error),))
        name = type(error).__name__
        return RunResult(RunEnd.RAISED, f"raised {name}", errors=(_in_full(error),), exception=name)
    return RunResult(RunEnd.RETURNED, "it left the room")


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _in_full(error: BaseException) -> str:
    return "".join(traceback.format_exception(error, limit=-5))


TRY_AGAIN: Final = 75
"""The exit code of a process that asks for a restart: EX_TEMPFAIL of sysexits.h."""

NEVER_AGAIN: Final = 69
"""The exit code of a process for which a restart makes no sense: EX_UNAVAILABLE of sysexits.h."""

LAST_LINES: Final = 0.1
"""Seconds that TERM waits for the end of a command's stdin: one that reads finds the end there before TERM comes."""


async def run_command(
    assistant: CommandAssistant,
    run: Run,
    launched: Callable[[int | None], None],
    *,
    grace: float,
    deadline: Callable[[], float],
    notice: float,
    life: int | None,
    hidden: Collection[str],
    turns: Turns | None = None,
) -> RunResult:
    """Run a command in a room, behind its guard; once the session has ended, it has `grace` seconds to exit.

    `deadline` returns when it must be gone, in seconds of the boot clock; `notice` seconds before that its guard ends
    it, if nothing else has. `life` is the descriptor of the lock that shows this replica alive, if it has one; `hidden`
    are the values that its environment must not hold. Its output takes `turns` with that of the others.
    """
    room, session = run.room, run.session
    # While the process starts, webhooks come that change it.
    presence = session.presence

    def spawned(process: GuardedProcess) -> None:
        # A renewal of a short lease must reach a guard that takes long to start.
        run.extend, run.has_left = process.extend, process.has_exited

    try:
        process = await GuardedProcess.start(
            assistant.argv,
            env=child_environment(inherited(), _room_variables(session), assistant.env, hidden=hidden),
            input=_input(session),
            deadline=deadline(),
            notice=notice,
            grace=grace,
            line=_logged(session) if assistant.log_output else None,
            life=life,
            run=name_of_run(room.owner, room.id, room.attempt),
            keeps_stdin=run.has_reader,
            spawned=spawned,
            turns=turns,
        )
    except SystemExhausted as error:
        return RunResult(RunEnd.EXHAUSTED, str(error))
    except StartedTooLate as error:
        # No fault of the assistant's, and no restart of it.
        run.handed_over = True
        return RunResult(RunEnd.RAISED, str(error))
    except AssistantError as error:
        return RunResult(RunEnd.RAISED, str(error))
    try:
        # While it started, a renewal may have moved the deadline.
        process.extend(deadline())
        launched(process.pid)
        exit = await _until_exit(run, process, presence, grace)
        run.handed_over = run.handed_over or exit.late
        return _result_of_exit(exit)
    except BaseException:
        # After an error of ours, too, such as a lack of memory: the room may get another assistant from here on.
        await process.kill()
        raise


async def _until_exit(run: Run, process: GuardedProcess, presence: Presence, grace: float) -> Exit:
    """Wait until a process is gone. Once its session has ended it has `grace` seconds."""
    ended = asyncio.create_task(run.session.ended.wait())
    exited = asyncio.create_task(process.wait())
    told = asyncio.create_task(_tell_events(run, process, presence))
    try:
        await asyncio.wait({exited, ended}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({exited, told}, return_when=asyncio.FIRST_COMPLETED, timeout=min(grace, LAST_LINES))
        process.stop(grace)
        # Not `await exited`: that would cancel it together with the run, while the process still ends.
        await asyncio.wait({exited})
        return exited.result()
    finally:
        ended.cancel()
        told.cancel()


async def _tell_events(run: Run, process: GuardedProcess, presence: Presence) -> None:
    """Write a room's events to the stdin of a command that reads them, until it closes that or should leave."""
    try:
        if run.has_reader:
            async for line in room_events(run.session, run.room.key, presence):
                if not await process.write(line):
                    return
                # Many lines that find room in the pipe must not keep the loop from everybody else.
                await asyncio.sleep(0)
    finally:
        run.has_reader = False
        process.end_input()


def _room_variables(session: Session) -> Mapping[str, str]:
    webhook = session.webhook
    return {
        "WHEREBY_ROOM_URL": session.room_url,
        "WHEREBY_ROOM_NAME": session.room_name,
        "WHEREBY_WEBHOOK_ID": "" if webhook is None else webhook.id,
    }


def _input(session: Session) -> bytes:
    webhook = None if session.webhook is None else readable_by_all(session.webhook.raw)
    room = {
        "roomUrl": session.room_url,
        "roomName": session.room_name,
        "subdomain": session.subdomain,
        "attempt": session.attempt,
        "webhook": webhook,
    }
    return json.dumps(room).encode() + b"\n"


def _logged(session: Session) -> Callable[[str, str], None]:
    def line(stream: str, text: str) -> None:
        session.log.info("%s: %s", stream, text, extra={"stream": stream})

    return line


def _result_of_exit(exit: Exit) -> RunResult:
    how, reason = _in_words(exit)
    errors = ("\n".join(exit.stderr),) if exit.stderr else ()
    retry = exit.code != NEVER_AGAIN
    return RunResult(how, reason, retry=retry, errors=errors, exit_code=exit.code, signal=exit.signal)


def _in_words(exit: Exit) -> tuple[RunEnd, str]:
    if exit.code == 0:
        return RunEnd.RETURNED, "it left the room"
    if exit.code == TRY_AGAIN:
        return RunEnd.REFUSED, f"exited with {TRY_AGAIN}: worth another try"
    if exit.code == NEVER_AGAIN:
        return RunEnd.REFUSED, f"exited with {NEVER_AGAIN}: not worth another try"
    if exit.code is not None:
        return RunEnd.RAISED, f"exited with {exit.code}"
    return RunEnd.RAISED, f"ended by signal {exit.signal}"


def launcher(
    assistant: Assistant,
    *,
    grace: float,
    deadline: Callable[[], float],
    notice: float = GUARD_NOTICE,
    life: Callable[[], int | None] = lambda: None,
    hidden: Collection[str] = (),
    clock: Clock = MACHINE,
) -> Launch:
    """Return the function that runs an assistant in a room to its end.

    `grace` is stop_grace in seconds. `deadline` returns when a process must be gone, in seconds of the boot clock,
    and `notice` is how many seconds before that its guard ends it. `life` returns the descriptor of the lock that shows
    this replica alive, if it has one. `hidden` are the values that no process may see. A coroutine's grace is by
    `clock`; a process lives by the machine's.
    """
    turns = Turns()

    async def launch(run: Run, launched: Callable[[int | None], None]) -> RunResult:
        if isinstance(assistant, CommandAssistant):
            # Webhooks would pile up in a session that nobody reads.
            run.has_reader = assistant.stdin == "stream"
            return await run_command(
                assistant,
                run,
                launched,
                grace=grace,
                deadline=deadline,
                notice=notice,
                life=life(),
                hidden=hidden,
                turns=turns,
            )
        launched(None)
        return await run_coroutine(assistant, run.session, grace, clock)

    return launch
