"""A trigger in the test's own process: real deliveries, a real store on a temporary file, a clock that can be moved."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from math import ceil, inf
from types import TracebackType
from typing import Any, Final, Protocol, cast

from msgspec import Struct, structs

from whereby_trigger.clock import Clock
from whereby_trigger.errors import DecodeError, DeliveryError, LifecycleError, StoreError, UsageError
from whereby_trigger.receive import Endpoint
from whereby_trigger.replica import Replica
from whereby_trigger.store import (
    Decision,
    Presence,
    Query,
    Record,
    Room,
    RoomClaim,
    RoomQuery,
    RunQuery,
    RunRecord,
    State,
    Store,
)
from whereby_trigger.testing.clock import MovableClock
from whereby_trigger.testing.meeting import LiveMeeting, Meeting
from whereby_trigger.testing.store import TestStore, store_file
from whereby_trigger.webhook import (
    RoomClientJoined,
    RoomClientLeft,
    RoomIdentity,
    RoomWebhook,
    Webhook,
    WebhookBase,
    decode,
    identify,
    room_from_url,
    sign,
)

SECRET = "a secret for tests"  # noqa: S105
LEAVE_WITHIN = 1.0
"""Seconds that an assistant has to leave by itself, when it is told to and at the end of a test."""

SETTLE_WITHIN: Final = 10.0
"""Seconds after which what does not settle is an error."""

LOOK: Final = 0.001
"""Seconds between looks whether anything still goes on."""

QUIET_TURNS: Final = 10
"""Turns of the event loop in which nothing goes on, after which nothing does, while assistants are in their rooms."""

LEASE: Final = 10 * 365 * 86400.0
"""Seconds for which the store's lease is held: a test may move its clock, and a debugger may stop it."""

FARTHEST: Final = 3 * 365 * 86400.0
"""Seconds that a test may move its clock, far less than the lease."""

Opened = tuple[Replica, Endpoint, Store]
Wire = Callable[[Mapping[str, Any], Store, Clock], Opened]


class AssistantStart(Struct, frozen=True):
    """Describe an assistant that starts, or would outside a test: its room's URL, the webhook that fired, and why.

    `reason` is what the predicate said, such as `predicate two_people returned True for 30 s`.
    """

    room_url: str
    trigger_webhook: RoomWebhook
    reason: str = ""


class TestingTrigger:
    """Deliver webhooks to a trigger and see what it decides; made by `trigger.testing()`.

    >>> async with trigger.testing() as t:
    ...     decision = await t.deliver(webhook("room.client.joined", room="/visit-1"))
    ...     assert decision.state == "fired"

    `assistants` lists the assistants that would have started, oldest first: one for each room and meeting. If an
    assertion fails in the block, what happened in each room is added to the error. Calls outside of the block raise
    LifecycleError; those that read the store raise StoreError.
    """

    __test__ = False

    def __init__(self, wire: Wire, release: Callable[[Store], None]) -> None:
        self._wire = wire
        self._release = release
        self._is_open = False
        self._begin()

    def _begin(self) -> None:
        self.assistants: list[AssistantStart] = []
        self._eventful: set[int] = set()
        """The seconds, by the boot clock, before which a room may have become empty or got its assistant."""

        self._seen_written = -1
        """How many rows were written when that was last noted."""

        self._successors: dict[str, AssistantStart] = {}
        self._told: dict[str, asyncio.Future[Decision]] = {}
        self._decided: dict[str, asyncio.Future[Decision]] = {}

    async def __aenter__(self) -> "TestingTrigger":
        if self._is_open:
            raise LifecycleError("this block has begun already: call trigger.testing() for each block")
        # Each block begins with an empty store.
        self._begin()
        self._clock = clock = MovableClock()
        self._farthest = clock.boot() + FARTHEST
        async with AsyncExitStack() as undo:
            self._is_open = True
            undo.callback(self._end)
            file = undo.enter_context(store_file())
            self._store = store = TestStore(file, LEASE, clock.lease, clock.wall)
            undo.callback(store.let_go)
            overrides = {
                "store": f"sqlite:///{file.path}",
                "spill": "off",
                "secret": SECRET,
                "path": "/",
                "lease_ttl": LEASE,
            }
            self._running, self._endpoint, _ = self._wire(overrides, store, clock)
            undo.callback(self._release, store)
            undo.callback(self._running.let_go)
            self._running.dispatcher.observe(self._note)
            self._running.claims.observe(self._note_claim)
            self._began = clock.wall()
            await self._running.open()
            undo.push_async_callback(self._leave)
            self._undo = undo.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and _is_failure(error):
            # The test has failed already: nothing here may hide why.
            with suppress(StoreError, TimeoutError):
                async with asyncio.timeout(LEAVE_WITHIN):
                    error.add_note(await self.timeline())
        await self._undo.aclose()

    def _end(self) -> None:
        self._is_open = False

    def _check_open(self, error: type[UsageError] = LifecycleError) -> None:
        if not self._is_open:
            raise error("the trigger of this test is not open: call this inside `async with trigger.testing() as t:`")

    async def _leave(self) -> None:
        hurry = asyncio.Event()
        timer = asyncio.get_running_loop().call_later(LEAVE_WITHIN, hurry.set)
        await self._running.drain(0, hurry)
        timer.cancel()
        await self._running.close(0)

    async def deliver(self, webhook: WebhookBase | bytes) -> Decision:
        """Deliver a webhook, signed as Whereby signs, and wait for its decision; a body of your own may be bytes.

        A webhook that is put on hold returns as `held`: `decided` waits for what becomes of it. A duplicate gives the
        decision on the first. Raises DeliveryError where the answer is not 200.
        """
        body = webhook if isinstance(webhook, bytes) else webhook.raw
        status = await self.post(body, sign(SECRET, body, int(self.now())))
        if status != 200:
            raise DeliveryError(f"the delivery was answered {status}, not 200")
        try:
            id = decode(body).id
        except DecodeError:
            return await self._quarantine(identify(body))
        decision = await _heard(self._told, id)
        await self._list_successors()
        return decision

    async def decided(self, webhook: WebhookBase) -> Decision:
        """Wait until a webhook that was delivered is decided, and no longer held."""
        self._check_open()
        return await _heard(self._decided, webhook.id)

    def meeting(self, room: str = "/visit-1", **options: Any) -> LiveMeeting:
        """Begin a meeting, whose webhooks are delivered as they happen; `options` are those of Meeting.

        >>> meeting = t.meeting("/visit-1")
        >>> decision = await meeting.join("host")
        """
        options.setdefault("now", lambda: datetime.fromtimestamp(self.now(), UTC))
        return LiveMeeting(Meeting(room, **options), self.deliver)

    def now(self) -> float:
        """Return the time by the clock of this test, in seconds since the epoch."""
        self._check_open()
        return self._clock.wall()

    async def advance(self, seconds: float) -> None:
        """Put the clock forward; return once what came due on the way is done, in the order in which it came due.

        This moves holds, the pauses before a predicate is asked again and an assistant started again, `max_age`,
        `leave_when_empty`, `max_duration`, the retention, and a coroutine's `stop_grace`. Your own code's sleeps and
        `predicate_timeout` go by the machine's clock. Async listeners are not waited for: `settle` does that.
        Raises ValueError for a time below 0 or above three years, TimeoutError if something is not done within 10 s.
        """
        self._check_open()
        if not 0 <= seconds <= self._farthest - self._clock.boot():
            raise ValueError(f"advance({seconds!r}): write seconds from 0 to three years in all")
        # What was asked for by hand begins now, not at the first time on the way.
        self._clock.move_to(self._clock.boot())
        await self._rest()
        end = self._clock.boot() + seconds
        while True:
            if self._seen_written != self._store.written:
                # An assistant may have begun that no webhook announced: by hand, or as a slot became free.
                self._seen_written = self._store.written
                self._note_event()
            self._clock.move_to(min(end, self._clock.next_due(), self._next_bound()))
            await self._rest()
            if self._clock.boot() >= end:
                return

    async def settle(self) -> None:
        """Wait until nothing is queued or being decided, no listener runs, and no assistant is about to start or end.

        A webhook on hold is settled. Raises TimeoutError, which says what still goes on, after 10 s.
        """
        self._check_open()
        give_up_at = time.monotonic() + SETTLE_WITHIN
        written = -1
        # An assistant that was started or stopped by hand shows only when its supervisor looks at the store again.
        while written != self._store.written:
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"not settled after {SETTLE_WITHIN:g} s: each change of the store leads to another")
            written = self._store.written
            self._clock.move_to(self._clock.boot())
            await self._wait_until_nothing(lambda: self._going_on() or self._running.lasts(), give_up_at)

    async def timeline(self, room: str | None = None) -> str:
        """Return what happened in a room, given as its name or URL, or in all rooms, for a person to read."""
        self._check_open(StoreError)
        return await story_of(self._store, self._began, self.now(), self.assistants, room)

    async def post(self, body: bytes, signature: str | None = None) -> int:
        """Post a body with a signature header of your own, or none; return the answer's status."""
        self._check_open()
        headers = [] if signature is None else [(b"whereby-signature", signature.encode())]
        scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
        request = {"type": "http.request", "body": body, "more_body": False}
        self._note_event()
        sent: list[Any] = []

        async def receive() -> Any:
            return request

        async def send(message: Any) -> None:
            sent.append(message)

        await self._endpoint(scope, receive, send)
        return int(sent[0]["status"])

    async def stored(self) -> list[Record]:
        """Read what the store holds, newest first."""
        self._check_open(StoreError)
        return await self._store.find(Query())

    def _note_event(self) -> None:
        self._eventful.add(ceil(self._clock.boot()) + 1)

    def _next_bound(self) -> float:
        """Return the next second at which an assistant may be at a bound; infinity if there is none."""
        bounds = (self._running.bounds.leave_when_empty, self._running.bounds.max_duration)
        ends = [second + bound for bound in bounds if bound is not None for second in self._eventful]
        return min((end for end in ends if end > self._clock.boot()), default=inf)

    def _going_on(self) -> str:
        going_on = self._running.going_on(self._clock.rests)
        if not going_on and not self._clock.all_rest:
            return "what came due is being done"
        # What listeners have raised is written behind.
        return going_on or ("" if self._store.idle else "the store writes")

    async def _rest(self) -> None:
        """Wait until all that could be done by now is done, and assistants that were told to leave have had time to."""
        leave_by = time.monotonic() + LEAVE_WITHIN

        def going_on() -> str:
            leaving = self._running.leaving and time.monotonic() < leave_by
            return self._going_on() or ("assistants leave" if leaving else "")

        await self._wait_until_nothing(going_on)

    async def _wait_until_nothing(self, going_on: Callable[[], str], give_up_at: float | None = None) -> None:
        give_up_at = time.monotonic() + SETTLE_WITHIN if give_up_at is None else give_up_at
        # Even if nothing goes on: else a test that waits for a task of its own, call by call, never lets it begin.
        await asyncio.sleep(0)
        quiet = 0
        # An assistant that fails at once does so some turns of the loop after it counts as started.
        while quiet < QUIET_TURNS:
            if what := going_on():
                if time.monotonic() > give_up_at:
                    raise TimeoutError(f"not settled after {SETTLE_WITHIN:g} s: {what}")
                quiet = 0
                await asyncio.sleep(LOOK)
            elif self._running.assistants:
                quiet += 1
                await asyncio.sleep(0)
            else:
                break
        await self._list_successors()

    async def _list_successors(self) -> None:
        """List the assistants of meetings that had to wait for the end of the one before."""
        if not self._successors:
            return
        for room in reversed(await self._store.rooms()):
            if room.webhook is not None and (start := self._successors.pop(room.webhook, None)) is not None:
                self.assistants.append(start)

    async def _quarantine(self, id: str) -> Decision:
        (record,) = await self._store.find(Query(ids=(id,)))
        return Decision(0, id, record.state, record.reason, record.attempts, record.received_at)

    def _note(self, decision: Decision) -> None:
        for noted in (self._told,) if decision.state is State.HELD else (self._told, self._decided):
            if _of(noted, decision.id).done():
                del noted[decision.id]
            _of(noted, decision.id).set_result(decision)
        reason = decision.reason.partition("; ")[0]
        if (successor := self._successors.get(decision.id)) is not None:
            self._successors[decision.id] = structs.replace(successor, reason=reason)
        self.assistants[:] = [
            structs.replace(start, reason=reason) if start.trigger_webhook.id == decision.id else start
            for start in self.assistants
        ]

    def _note_claim(self, room: RoomIdentity, webhook: Webhook, claim: RoomClaim) -> None:
        # Predicates are registered for webhooks that name a room, and for no others.
        start = AssistantStart(room.url, cast(RoomWebhook, webhook))
        self._note_event()
        if claim.new:
            self.assistants.append(start)
        else:
            self._successors[webhook.id] = start


def _of(noted: dict[str, asyncio.Future[Decision]], id: str) -> "asyncio.Future[Decision]":
    return noted.setdefault(id, asyncio.get_running_loop().create_future())


def _is_failure(error: BaseException) -> bool:
    """Return True if a test has failed by an assertion or a timeout, or one of its tasks has."""
    failures = AssertionError, TimeoutError
    return isinstance(error, failures) or (
        isinstance(error, BaseExceptionGroup) and error.subgroup(failures) is not None
    )


async def _heard(noted: dict[str, asyncio.Future[Decision]], id: str) -> Decision:
    # A task that gives up waiting must not cancel what others wait for, nor what the next call would wait for.
    return await asyncio.shield(_of(noted, id))


class Start(Protocol):
    """An assistant that starts, or would outside a test."""

    @property
    def room_url(self) -> str: ...

    @property
    def reason(self) -> str: ...


async def story_of(store: Store, began: float, now: float, starts: Sequence[Start], room: str | None = None) -> str:
    """Return what happened in a room, given as its name or URL, or in all rooms, with times in seconds since `began`.

    Raises ConfigError if a URL is not a Whereby room's.
    """
    room = room_from_url(room).key if room is not None and "://" in room else room
    webhooks: dict[str | None, list[Record]] = defaultdict(list)
    for record in reversed(await store.find(Query(room=room))):
        webhooks[record.room].append(record)
    entries: dict[str, list[Room]] = defaultdict(list)
    for entry in reversed(await store.find_rooms(RoomQuery(room=room))):
        entries[entry.key].append(entry)
    runs: dict[int, list[RunRecord]] = defaultdict(list)
    for run in reversed(await store.find_runs(RunQuery(room=room))):
        runs[run.entry].append(run)
    keys = [key for key in dict.fromkeys((*webhooks, *entries)) if key is not None]
    presences = await store.presences(frozenset(keys)) if keys else {}
    lines = [f"What happened, by the clock of the test, which shows {now - began:.2f} s:"]
    for key in keys:
        lines += ["", f"in {key}"]
        lines += [line for record in webhooks[key] for line in _webhook(record, began)]
        lines += [f"  now: {_who(presences[key])}"]
        lines += [f"  assistant: {start.reason or 'its predicate fired'}" for start in starts if _is_in(start, key)]
        lines += [line for entry in entries[key] for line in _entry(entry, runs[entry.id], began)]
    if webhooks[None]:
        lines += ["", "in no room", *(line for record in webhooks[None] for line in _webhook(record, began))]
    return "\n".join(lines if len(lines) > 1 else [*lines, "nothing was delivered"])


def _webhook(record: Record, began: float) -> Iterable[str]:
    again = f", delivered {record.deliveries} times" if record.deliveries > 1 else ""
    yield f"{record.received_at - began:9.2f}  {_called(record)}{again}"
    decided = "" if record.decided_at is None else f"{record.decided_at - began:9.2f}"
    yield f"{decided:>9}    {record.state}: {record.reason}" if record.reason else f"{decided:>9}    {record.state}"
    for error in record.errors:
        yield f"{'':>9}    {error}"


def _called(record: Record) -> str:
    try:
        webhook = decode(record.body)
    except DecodeError:
        return f"{record.type or 'a body that cannot be decoded'} {record.id[:12]}"
    said = ""
    if isinstance(webhook, RoomClientJoined | RoomClientLeft):
        present = webhook.data.present
        counts = "" if present is None else f": {_counted(*present)}"
        said = f" ({webhook.data.role_name}{counts})"
    return f"{record.type} {record.id[:12]}{said}"


def _entry(entry: Room, runs: Iterable[RunRecord], began: float) -> Iterable[str]:
    yield f"{entry.since - began:9.2f}  assistant {entry.state}{': ' * bool(entry.reason)}{entry.reason}"
    for run in runs:
        ended = "runs" if run.ended_at is None else f"{run.outcome} at {run.ended_at - began:.2f}, {run.reason}"
        yield f"{run.started_at - began:9.2f}    run {run.attempt}: {ended}"


def _is_in(start: Start, key: str) -> bool:
    return room_from_url(start.room_url).key == key


def _who(presence: Presence) -> str:
    if presence.humans is None or presence.bots is None:
        return "who is in the room is unknown"
    return _counted(presence.humans, presence.bots)


def _counted(humans: int, bots: int) -> str:
    return f"{humans} human{'' if humans == 1 else 's'}, {bots} bot{'' if bots == 1 else 's'}"
