"""The supervisor: gives waiting rooms their assistant, one each, and sees every run through to its end."""

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from msgspec import structs

from whereby_trigger.assist.runners import (
    HANDED_OVER,
    Launch,
    NextState,
    Run,
    RunEnd,
    RunResult,
    next_state,
    report_of,
)
from whereby_trigger.assist.session import Announce, AssistantEvent, announce_nothing
from whereby_trigger.assist.shortage import Shortage
from whereby_trigger.clock import MACHINE, Clock
from whereby_trigger.errors import StoreError, StoreUnavailable
from whereby_trigger.loggers import own_logger
from whereby_trigger.metrics import Counts
from whereby_trigger.store import (
    UNBOUNDED,
    Bounds,
    Room,
    RoomClaim,
    RoomMove,
    RoomQuery,
    RoomRequest,
    RoomState,
    Store,
    created_at,
    read_again,
    session_of,
)
from whereby_trigger.text import storable_text
from whereby_trigger.threads import shortage_of
from whereby_trigger.webhook import (
    RoomClientJoined,
    RoomClientLeft,
    RoomIdentity,
    RoomWebhook,
    Webhook,
    is_human,
    redacted,
)

logger = own_logger("whereby_trigger.assist")

LOOK: Final = 1.0
"""Seconds between looks at the store, if nothing wakes the supervisor earlier."""

REST, LONGEST_REST = 10.0, 0.1
"""After a look that took T seconds, a webhook waits REST * T seconds for the next, at most LONGEST_REST seconds."""

STARTED_AT_ONCE: Final = 50
"""How many assistants start in one turn. Between turns, deliveries are handled and the lease is renewed."""

END_WAITING_EVERY: Final = 5.0
"""Seconds between looks for waiting rooms that reached a bound: they hold no slot, and there may be very many."""

OWN_EVERY: Final = 5.0
"""Seconds between looks for rooms that are ours but have no run."""

UNTOLD: Final = "the store refused to take why"
"""The reason that is stored for a room if the store refused its own reason, or its run."""

UNKNOWN: Final = "its replica did not know that it had the room"
"""The reason that is stored for a room if the answer to the call that took it was lost."""

Claimed = Callable[[RoomIdentity, Webhook, RoomClaim], None]


async def launch_nothing(run: Run, launched: Callable[[int | None], None]) -> RunResult:
    """Refuse to launch: the `launch` of a supervisor without slots, which is never called."""
    raise RuntimeError("this program has no assistant")


class Supervisor:
    """Run an assistant in each room that waits for one, in at most `max_rooms` rooms at a time.

    A room that has waited for longer than `max_age` seconds gets none. An assistant that reaches one of its `bounds` is
    told to leave. It receives webhooks without the fields `redact`, even if they are still stored with them. `announce`
    is called with what became of an assistant that ran here, after the store has committed it. `counts` counts the runs
    that end. `clock` times the looks at the store, and the pauses.
    """

    def __init__(
        self,
        store: Store,
        launch: Launch,
        max_rooms: int,
        max_age: float = math.inf,
        bounds: Bounds = UNBOUNDED,
        announce: Announce = announce_nothing,
        counts: Counts | None = None,
        clock: Clock = MACHINE,
        redact: tuple[str, ...] = (),
    ) -> None:
        self._clock = clock
        self._redact = redact
        self._store = store
        self._launch = launch
        self.slots = max_rooms
        self._max_age = max_age
        self._bounds = bounds
        self._end_waiting_at = self._look_at_own = self._look_at_resting = 0.0
        self._announce = announce
        self._counts = counts or Counts()
        self._runs: dict[str, Run] = {}
        self.by_room: Mapping[str, object] = self._runs
        self._resting: dict[int, Room] = {}
        # Changes that the store has not committed yet, each with its room's id; rooms whose end it refused for good.
        self._recording: dict[asyncio.Future[bool], int] = {}
        self._unrecorded: set[int] = set()
        self._woken = asyncio.Event()
        self._rested_at = math.inf
        self._rests: asyncio.TimerHandle | None = None
        self._heard = self._looked = self._unanswered = self._draining = self._handing_over = False
        self._shortage = Shortage(clock)

    @property
    def short(self) -> str:
        """What the system lacked, a moment ago, to start an assistant; "" if they start."""
        return self._shortage.words

    @property
    def free(self) -> int:
        """How many more rooms this replica can serve now."""
        return 0 if self._draining or self._handing_over else self.slots - len(self._runs)

    @property
    def running(self) -> bool:
        """Whether any assistant of ours is in a room."""
        return bool(self._runs)

    @property
    def runs(self) -> int:
        """How many assistants of ours are in their rooms."""
        return len(self._runs)

    @property
    def starting(self) -> bool:
        """True if an assistant is about to start here, or if a change to a room is not in the store yet."""
        begin = any(run.begins for run in self._runs.values())
        return not self._looked or self._woken.is_set() or self._heard or bool(self._recording) or begin

    @property
    def leaving(self) -> bool:
        """True if an assistant was told to leave, or has returned, and is not gone yet."""
        return any(run.ends for run in self._runs.values())

    def wake(self, room: str | None = None) -> None:
        """Look at the store now. With a room's key, look only if an assistant of ours is there, and after a rest."""
        if room is None:
            self._woken.set()
        elif room in self._runs and not self._heard:
            self._heard = True
            self._look_rested()

    def _look_rested(self) -> None:
        if self._rested_at < math.inf:
            self._rests = asyncio.get_running_loop().call_at(self._rested_at, self._woken.set)

    def extended(self, deadline: float) -> None:
        """Pass the lease's new deadline, on the boot clock, to every process assistant."""
        for run in self._runs.values():
            if run.extend is not None:
                run.extend(deadline)

    async def supervise(self) -> None:
        """Start assistants, tell them to leave, and deliver their rooms' webhooks to them, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            began, self._heard, self._rested_at = loop.time(), False, math.inf
            if self._rests is not None:
                self._rests.cancel()
            self._woken.clear()
            try:
                await self._launch_waiting()
                await self._end_waiting()
                await self._apply_stops()
                await self._deliver_webhooks()
                await self._announce_unstarted()
                await self._give_back_unknown()
            except StoreError as error:
                fields = {"replica": self._store.replica}
                logger.warning("cannot read rooms from the store; will retry: %s", error, extra=fields)
            self._looked = True
            self._rested_at = loop.time() + min(LONGEST_REST, REST * (loop.time() - began))
            if self._heard:
                self._look_rested()
            await self._clock.poll(self._woken, LOOK)

    async def drain(self, timeout: float) -> None:
        """Launch nothing more, and wait at most `timeout` seconds for the assistants that run."""
        self._draining = True
        await self._wait_for_runs(timeout)

    async def hand_over(self, reason: str) -> None:
        """End every assistant, so that another replica can take its room; each has `stop_grace` to return."""
        self._handing_over = True
        for run in self._runs.values():
            run.hand_over(reason)
        await self._wait_for_runs(None)

    async def cut_off(self, reason: str) -> None:
        """End every assistant now, so that another replica can take its room."""
        self._handing_over = True
        for run in self._runs.values():
            run.cut_off(reason)
        await self._wait_for_runs(None)

    def resume(self) -> None:
        """Launch again, after a hand-over."""
        self._handing_over = False
        self.wake()

    async def settle(self, timeout: float) -> None:
        """Wait at most `timeout` seconds until the store has taken all changes, so that they are announced."""
        if self._recording:
            await asyncio.wait(self._recording, timeout=timeout)

    async def _wait_for_runs(self, timeout: float | None) -> None:
        tasks = [run.supervised for run in self._runs.values() if run.supervised is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)

    async def _launch_waiting(self) -> None:
        # If the last take got no answer, it may have made rooms ours. The next take names them, so a drain takes once
        # more, to give them back. A hand-over does not: the store is away or about to close, and either frees them.
        slots = min(self._shortage.slots(max(0, self.free)), STARTED_AT_ONCE)
        if slots <= 0 and (self._handing_over or not self._unanswered):
            return
        self._unanswered = True
        replica = self._store.replica
        taken = await self._store.take(slots, self._max_age, self._bounds)
        self._unanswered = False
        # Rooms that were taken under a lease that is lost by now belong to the replica that takes over.
        held = self._store.lease.held and self._store.replica == replica
        for room in taken:
            if held and self.free > 0:
                self._begin(room)
            else:
                self._record(RoomMove(room.id, RoomState.WAITING, HANDED_OVER), lambda ours: self.wake())
        if len(taken) == STARTED_AT_ONCE:
            self.wake()

    async def _give_back_unknown(self) -> None:
        """Release rooms that this replica owns but has no run in: otherwise nobody would start their assistants.

        A take may be committed after we gave up waiting for its answer, and even after the take that followed it.
        """
        # While a take has no answer, the next one names its rooms, also after a hand-over.
        if self._unanswered or self._clock.boot() < self._look_at_own:
            return
        self._look_at_own = self._clock.boot() + OWN_EVERY
        replica = self._store.replica
        owned = await self._store.find_rooms(RoomQuery(owner=replica))
        # A room whose run ended during the read is no longer ours. One whose end was refused would start again forever.
        known = {run.room.id for run in self._runs.values()}.union(self._recording.values(), self._unrecorded)
        for room in owned if replica == self._store.replica else ():
            if room.id not in known:
                fields = {"room": room.key, "replica": replica, "attempt": room.attempt}
                after = RoomState.ENDED if room.state is RoomState.ENDING else RoomState.WAITING
                self._record(RoomMove(room.id, after, room.stop or UNKNOWN), lambda ours: self.wake())
                logger.warning("room %s is ours, but has no assistant: giving it back", room.key, extra=fields)

    def _begin(self, room: Room) -> None:
        key = room.key
        try:
            run = Run(structs.replace(room, body=room.body and redacted(room.body, self._redact)))
            launch = self._launch(run, partial(self._launched, run))
        except MemoryError as error:
            # The room is ours, and must be given back: without its webhook, a run takes next to no memory.
            run, launch = Run(structs.replace(room, body=None)), _not_launched(error)
        self._runs[key] = run
        try:
            run.launched = asyncio.create_task(launch, name=f"assistant in {key}")
            run.supervised = asyncio.create_task(self._supervise_run(run, run.launched), name=f"room {key}")
        except MemoryError:
            # Nothing would wait for its end. The room is given back like any other without a run.
            del self._runs[key]
            if run.launched is not None:
                run.launched.cancel()
            raise

    async def _supervise_run(self, run: Run, launched: "asyncio.Task[RunResult]") -> None:
        room = run.room
        await asyncio.wait({launched})
        # First: if anything fails below, the room is given back like any other without a run.
        del self._runs[room.key]
        end = _end_of(launched)
        end = structs.replace(end, reason=storable_text(end.reason))
        if end.how is RunEnd.EXHAUSTED:
            pause = self._shortage.note(end.reason)
            self._clock.call_later(pause, self.wake)
        after = next_state(end, restarts=room.restarts, stop=run.stop, handing_over=run.handed_over)
        self._counts.run_ended(end.how, after.state)
        move = RoomMove(
            id=room.id,
            state=after.state,
            reason=after.reason,
            delay=after.pause,
            restarts=after.restarts,
            run=report_of(end, handing_over=run.handed_over),
        )
        self._record(move, partial(self._concluded, room, after))
        level, fields = _level(after, room, end), run.log_fields
        logger.log(level, "room %s %s: %s", room.key, after.state, after.reason, extra=fields)

    def _launched(self, run: Run, pid: int | None) -> None:
        run.begins = False
        # If it has been asked to stop by now, it is recorded as ending, and does not become live.
        if run.stop is not None:
            return
        room = run.room
        logger.info("room %s live: an assistant is there, attempt %d", room.key, room.attempt, extra=run.log_fields)
        self._record(RoomMove(room.id, RoomState.LIVE, "", pid=pid), partial(self._went_live, run))

    async def _end_waiting(self) -> None:
        if self._clock.boot() >= self._end_waiting_at:
            self._end_waiting_at = self._clock.boot() + END_WAITING_EVERY
            await self._store.end_waiting(self._bounds)

    async def _apply_stops(self) -> None:
        if not self._runs:
            return
        for room in await self._store.stopping(self._bounds):
            run = self._runs.get(room.key)
            if run is not None and run.room.id == room.id and room.stop is not None and run.stop is None:
                run.stop = room.stop
                run.session.ended.set(room.stop)
                self._record(RoomMove(room.id, RoomState.ENDING, room.stop, pid=room.pid), partial(self._moved, run))

    async def _deliver_webhooks(self) -> None:
        runs = {key: run for key, run in self._runs.items() if run.has_reader}
        for after in {run.cursor for run in runs.values()}:
            keys = frozenset(key for key, run in runs.items() if run.cursor == after)
            heard = await self._store.webhooks_after(after, keys)
            for key, seq, body in heard.webhooks:
                runs[key].deliver(seq, body, self._redact)
            for key in keys:
                runs[key].advance(heard.cursor)
            if heard.more:
                self.wake()

    def _record(self, move: RoomMove, done: Callable[[bool], None]) -> None:
        """Hand a change to the store, which keeps the order. Do not wait for it: an outage must not delay an end."""
        recorded = asyncio.ensure_future(self._store.move(move))
        self._recording[recorded] = move.id
        recorded.add_done_callback(partial(self._settled, move, done))

    def _settled(self, move: RoomMove, done: Callable[[bool], None], recorded: "asyncio.Future[bool]") -> None:
        self._recording.pop(recorded, None)
        if recorded.cancelled():
            return
        error = recorded.exception()
        if error is None:
            done(recorded.result())
        elif isinstance(error, StoreError) and not isinstance(error, StoreUnavailable):
            fields = {"replica": self._store.replica}
            logger.error("room %d was not recorded as %s: %s", move.id, move.state, error, extra=fields)
            if move.reason == UNTOLD:
                self._unrecorded.add(move.id)
                return
            untold = structs.replace(move.run, exception=None, output="")
            self._record(structs.replace(move, reason=UNTOLD, run=untold), done)

    def _moved(self, run: Run, ours: bool) -> None:
        if not ours and run.launched is not None and not run.launched.done():
            run.cut_off("the room belongs to another replica now")
            fields = run.log_fields
            logger.warning("room %s belongs to another replica now: ending our assistant", run.room.key, extra=fields)

    def _went_live(self, run: Run, ours: bool) -> None:
        if ours:
            self._announce(_event(run.room, RoomState.LIVE, run.room.reason))
        self._moved(run, ours)

    def _concluded(self, room: Room, after: NextState, ours: bool) -> None:
        if ours and after.state is RoomState.WAITING:
            self._resting[room.id] = room
            if after.pause:
                self._clock.call_later(after.pause, self.wake)
        elif ours:
            self._announce(_event(room, after.state, after.reason))
        self.wake()

    async def _announce_unstarted(self) -> None:
        """Announce the end of rooms that ended while they waited for a restart, if their assistant last ran here."""
        # Not at every wake: a busy room may cause very many wakes.
        if not self._resting or self._clock.boot() < self._look_at_resting:
            return
        self._look_at_resting = self._clock.boot() + LOOK
        resting = list(self._resting.values())
        found = await read_again(self._store, resting)
        for room in resting:
            now = found.get(room.id)
            # If one more attempt put a newer entry here during the read, that entry is newer than what was read.
            if self._resting[room.id] is not room or (now is not None and now.state is RoomState.WAITING):
                continue
            del self._resting[room.id]
            if now is not None and now.state is RoomState.ENDED and now.attempt == room.attempt:
                self._announce(_event(room, now.state, now.reason))


def _event(room: Room, state: RoomState, reason: str) -> AssistantEvent:
    return AssistantEvent(room.url, state, reason, room.attempt, room.webhook)


async def _not_launched(error: MemoryError) -> RunResult:
    raise error


def _end_of(launched: "asyncio.Task[RunResult]") -> RunResult:
    if launched.cancelled():
        return RunResult(RunEnd.CUT_OFF, "cut off")
    error = launched.exception()
    if (short := shortage_of(error)) is not None:
        return RunResult(RunEnd.EXHAUSTED, f"not launched: out of {short}")
    if error is not None:
        name = type(error).__name__
        return RunResult(RunEnd.RAISED, f"not launched: {name}", errors=(str(error),), exception=name)
    return launched.result()


def _level(after: NextState, room: Room, end: RunResult) -> int:
    if after.state is RoomState.FAILED:
        return logging.ERROR
    worrying = after.restarts > room.restarts or end.how is RunEnd.EXHAUSTED
    return logging.WARNING if worrying else logging.INFO


class Claims:
    """Ask for an assistant in the room of a success; with `bots`, also if a bot joined or left."""

    def __init__(self, store: Store, supervisor: Supervisor, *, bots: bool) -> None:
        self._store = store
        self._supervisor = supervisor
        self._bots = bots
        self._observers: list[Claimed] = []

    def observe(self, observer: Claimed) -> None:
        """Call a function with each room that will get an assistant, the webhook that fired, and the claim.

        A claim that only waits as a successor may never get one.
        """
        self._observers.append(observer)

    async def claim(self, room: RoomIdentity, webhook: Webhook, received_at: float) -> str:
        """Claim the room of a webhook that fired; return what came of it. Raises StoreUnavailable."""
        if not self._bots and isinstance(webhook, RoomClientJoined | RoomClientLeft) and not is_human(webhook):
            return "no assistant for a bot's own event: is_human"
        claim = await self._store.request(request_for(room, webhook, received_at))
        if claim.new or claim.successor:
            for observer in self._observers:
                observer(room, webhook, claim)
        if claim.new:
            self._supervisor.wake()
        elif claim.successor:
            # The room's assistant may have been asked to end.
            self._supervisor.wake(room.key)
        return self._words(claim)

    def _words(self, claim: RoomClaim) -> str:
        if claim.new:
            return "an assistant starts" if self._supervisor.free > 0 else "no free slot: the room waits"
        if claim.outdated:
            return "no assistant: a newer meeting has the room"
        if claim.state is RoomState.ENDED:
            return "no assistant: its session has ended already"
        if claim.state is RoomState.ENDING:
            return "waits as the successor of the meeting that is ending"
        if claim.state is RoomState.WAITING:
            found = "the room waits for an assistant already"
        else:
            found = f"room has an assistant, on replica {claim.owner}"
        return f"{found}; waits as its successor, in case this is another meeting" if claim.successor else found


class NoClaims(Claims):
    """Ask for nothing, in a program that has no assistant."""

    async def claim(self, room: RoomIdentity, webhook: Webhook, received_at: float) -> str:
        return ""


def request_for(room: RoomIdentity, webhook: Webhook | None, at: float) -> RoomRequest:
    """Return the request for an assistant in a room, because of a webhook received `at` a time, or by hand then."""
    if not isinstance(webhook, RoomWebhook):
        return RoomRequest(room.key, room.url, None, None, at)
    created = created_at(webhook, at)
    return RoomRequest(room.key, room.url, webhook.id, session_of(webhook), at if created is None else created)
