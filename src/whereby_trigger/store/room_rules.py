"""What happens to a room's entry: one table, which both stores read at run time.

Theory
------
A request asks for an assistant in a room. An entry is what the store keeps of a request that got the room, from its
wait to its end. A room has at most one open entry: one that is waiting, starting, live or ending. A request that must
wait until the open entry is over is kept with that entry, as its successor.

A store locks the room, reads its open entry, asks this module what an event does to it, and writes the answer. `RULES`
says, by event and by the entry's state, which state comes next and what else is written; an event that is not listed
for a state changes nothing.

Some rules depend on more than the state. They are in code, below the table:

1. If a request meets an entry whose end was asked for, the entry counts as ending: the request is for the next
   assistant.
2. If an entry whose end was asked for would go back to waiting, it ends instead.
3. When an entry is over, its successor starts to wait, unless the successor is too old. Of several requests that could
   be the successor, the one that was created last stays.
4. `meets` says which of the three request events a request is, by the sessions of the request and of the entry.
5. A request that named no session may be of the first session that started after it. If two sessions are known to have
   started after it, its own is over.

Only an entry that belongs to a replica can be asked to end.

Two rules are written in SQL as well, so that one statement serves many rooms: TAKEN, and TOO_OLD for entries without a
successor. tests/store/test_room_rules.py checks every event on both stores against the table.

Sessions
--------
A room has one session at a time, so the times at which webhooks were created put sessions in order, in whatever order
the webhooks arrive. If a request is of another session than the entry, the session of the one that was created earlier
is over. If one of the two sessions is unknown, a later request may be of the same meeting or of the next one: it is
kept as the successor, and starts if its own session is not known to be over when the entry is.
"""

import json
from collections.abc import Mapping, Sequence
from enum import Enum, StrEnum, auto
from math import inf
from typing import Final, NamedTuple

from msgspec import structs

from whereby_trigger.store.presence import SessionChange
from whereby_trigger.store.records import RoomClaim, RoomRequest
from whereby_trigger.store.states import OVER, OWNED, RoomState, RunOutcome
from whereby_trigger.store.stay import are_two, begun, differ, is_end_of_third, is_over, started_after


class RoomEvent(StrEnum):
    """Name what can happen to a room's entry."""

    REQUESTED = "requested"
    """A webhook of the entry's session fired, or somebody asked by hand."""

    REQUESTED_LATER = "requested later"
    """A webhook fired that may be of a later session: it was created later, and not both sessions are known."""

    REQUESTED_BY_NEXT = "requested by the next session"
    """A webhook of a later session fired: it was created later, and both sessions are known."""

    TAKEN = "taken"
    """A replica with a free slot takes the room."""

    WENT_LIVE = "went live"
    BEGAN_TO_END = "began to end"
    ENDED = "ended"
    FAILED = "failed"
    WAITS_AGAIN = "waits again"
    """The owner moved the room back: its assistant restarts later, or the owner drains and hands the room over."""

    STOPPED = "stopped by hand"
    SESSION_OVER = "session over"
    """The session that the assistant was asked for has ended, or another one has started."""

    SUCCESSOR_OVER = "successor's session over"
    OWNER_GONE = "owner gone"
    """The owner died, lost its lease or stopped."""

    OWNER_LONG_GONE = "owner long gone"
    """The owner died longer than `max_age` ago."""

    TOO_OLD = "too old"
    """The room has waited for longer than `max_age`."""

    BOUND_REACHED = "bound reached"
    """The room was empty for `leave_when_empty`, or has had its assistant for `max_duration`."""


class Effect(Enum):
    """Name what is written beside the state."""

    ASK_TO_STOP = auto()
    """Note why the assistant must end, unless a reason is noted already."""

    KEEP_SUCCESSOR = auto()
    """Keep the request as the entry's successor, unless it already has one that was created later."""

    DROP_SUCCESSOR = auto()


class Step(NamedTuple):
    """Hold what an event does to an entry in one state: the state that comes next, and what else is written."""

    state: RoomState | None
    effects: tuple[Effect, ...] = ()


WAITING, STARTING, LIVE, ENDING, ENDED, FAILED = RoomState
ASK_TO_STOP, KEEP_SUCCESSOR, DROP_SUCCESSOR = Effect
STAYS = None
"""The entry stays in its state."""

RULES: Final[Mapping[RoomEvent, Mapping[RoomState | None, Step]]] = {
    RoomEvent.REQUESTED: {
        None: Step(WAITING),
        ENDING: Step(STAYS, (KEEP_SUCCESSOR,)),
    },
    RoomEvent.REQUESTED_LATER: {
        WAITING: Step(STAYS, (KEEP_SUCCESSOR,)),
        STARTING: Step(STAYS, (KEEP_SUCCESSOR,)),
        LIVE: Step(STAYS, (KEEP_SUCCESSOR,)),
        ENDING: Step(STAYS, (KEEP_SUCCESSOR,)),
    },
    RoomEvent.REQUESTED_BY_NEXT: {
        WAITING: Step(ENDED, (KEEP_SUCCESSOR,)),
        STARTING: Step(STAYS, (ASK_TO_STOP, KEEP_SUCCESSOR)),
        LIVE: Step(STAYS, (ASK_TO_STOP, KEEP_SUCCESSOR)),
        ENDING: Step(STAYS, (KEEP_SUCCESSOR,)),
    },
    RoomEvent.TAKEN: {
        WAITING: Step(STARTING),
    },
    RoomEvent.WENT_LIVE: {
        STARTING: Step(LIVE),
    },
    RoomEvent.BEGAN_TO_END: {
        STARTING: Step(ENDING),
        LIVE: Step(ENDING),
    },
    RoomEvent.ENDED: {
        STARTING: Step(ENDED),
        LIVE: Step(ENDED),
        ENDING: Step(ENDED),
    },
    RoomEvent.FAILED: {
        STARTING: Step(FAILED),
        LIVE: Step(FAILED),
    },
    RoomEvent.WAITS_AGAIN: {
        STARTING: Step(WAITING),
        LIVE: Step(WAITING),
    },
    RoomEvent.STOPPED: {
        WAITING: Step(ENDED, (DROP_SUCCESSOR,)),
        STARTING: Step(STAYS, (ASK_TO_STOP, DROP_SUCCESSOR)),
        LIVE: Step(STAYS, (ASK_TO_STOP, DROP_SUCCESSOR)),
        ENDING: Step(STAYS, (ASK_TO_STOP, DROP_SUCCESSOR)),
    },
    RoomEvent.SESSION_OVER: {
        WAITING: Step(ENDED),
        STARTING: Step(STAYS, (ASK_TO_STOP,)),
        LIVE: Step(STAYS, (ASK_TO_STOP,)),
        ENDING: Step(STAYS, (ASK_TO_STOP,)),
    },
    RoomEvent.SUCCESSOR_OVER: {
        WAITING: Step(STAYS, (DROP_SUCCESSOR,)),
        STARTING: Step(STAYS, (DROP_SUCCESSOR,)),
        LIVE: Step(STAYS, (DROP_SUCCESSOR,)),
        ENDING: Step(STAYS, (DROP_SUCCESSOR,)),
    },
    RoomEvent.OWNER_GONE: {
        STARTING: Step(WAITING),
        LIVE: Step(WAITING),
        ENDING: Step(ENDED),
    },
    RoomEvent.OWNER_LONG_GONE: {
        STARTING: Step(ENDED),
        LIVE: Step(ENDED),
        ENDING: Step(ENDED),
    },
    RoomEvent.TOO_OLD: {
        WAITING: Step(ENDED),
    },
    RoomEvent.BOUND_REACHED: {
        WAITING: Step(ENDED),
        STARTING: Step(STAYS, (ASK_TO_STOP,)),
        LIVE: Step(STAYS, (ASK_TO_STOP,)),
    },
}
"""By event and by the state of the room's open entry (None: it has none), what comes next."""

MOVES: Final[Mapping[RoomState, RoomEvent]] = {
    LIVE: RoomEvent.WENT_LIVE,
    ENDING: RoomEvent.BEGAN_TO_END,
    ENDED: RoomEvent.ENDED,
    FAILED: RoomEvent.FAILED,
    WAITING: RoomEvent.WAITS_AGAIN,
}
"""The event of a move by the owner, by the state that the room moves to."""

ROOM_TRANSITIONS: Final[Mapping[RoomState, frozenset[RoomState]]] = {
    before: frozenset(
        after for steps in RULES.values() if before in steps and (after := steps[before].state) is not None
    )
    for before in RoomState
}
"""The states that may follow each state. A restart, a takeover or a drain leads back to waiting."""


ANOTHER_STARTED: Final = "another session has started"
SESSION_ENDED: Final = "the session has ended"
TOO_OLD: Final = "waited longer than max_age"

IMPLIED: Final[Mapping[RoomState, RunOutcome]] = {
    ENDED: RunOutcome.LEFT,
    FAILED: RunOutcome.FAILED,
    WAITING: RunOutcome.HANDED_OVER,
}
"""How a run ended, by the state in which it leaves its room; used if its replica reports nothing more exact."""


class OpenRoom(NamedTuple):
    """Hold what the rules read of a room's open entry.

    `stop` is why its end was asked for, or None. `asked_at` is when its webhook was created, or somebody asked by hand,
    in seconds since the epoch. `successor` is a request as `pack` wrote it.
    """

    id: int
    state: RoomState
    owner: str | None
    stop: str | None
    session_id: str | None
    asked_at: float
    successor: str | None

    @property
    def ending(self) -> bool:
        """True if the entry is ending, or its end was asked for: its assistant may not have been told yet."""
        return self.state is ENDING or self.stop is not None


class Successor(NamedTuple):
    """Hold a request that gets the room next.

    `kept_at` is when it became a successor, by the store's clock; None if it never was one. Its max_duration counts
    from `began_at`, or from its first start if that is None. It is set if the request may be of the same meeting as the
    entry before: then a second assistant must not get the whole time again.
    """

    request: RoomRequest
    kept_at: float | None = None
    began_at: float | None = None


class Change(NamedTuple):
    """Hold what a store writes: the entry as it is now, and why its state changed.

    `opens` is the request for which the store opens a new entry, which waits; None if there is none.
    """

    entry: OpenRoom
    reason: str | None = None
    opens: Successor | None = None


class RequestOutcome(NamedTuple):
    """Hold the answer to a request, what it changes in the open entry, and the request that `opens` a new one."""

    claim: RoomClaim
    change: Change | None = None
    opens: Successor | None = None


def change(entry: OpenRoom, event: RoomEvent, reason: str, *, asked: str | None = None, oldest: float = -inf) -> Change:
    """Return what an event does to an entry, for a reason. If it does nothing, the change holds the same entry.

    `asked` is the request to keep as its successor, packed. A successor created before `oldest` does not start.
    """
    step = RULES[event].get(_state_met(entry, event))
    if step is None:
        return Change(entry)
    state, stop, successor = step.state or entry.state, entry.stop, entry.successor
    if Effect.KEEP_SUCCESSOR in step.effects:
        successor = _newer(successor, asked)
    if Effect.DROP_SUCCESSOR in step.effects:
        successor = None
    if Effect.ASK_TO_STOP in step.effects and stop is None:
        stop = reason
    if step.state is WAITING and stop is not None:
        # Rule 2.
        state, reason = ENDED, stop
    opens = None
    if state in OVER and successor is not None:
        opens, successor = unpack(successor), None
        if None in (entry.session_id, opens.request.session_id):
            # It may be of the same meeting.
            opens = opens._replace(began_at=opens.kept_at)
        opens = opens if opens.request.asked_at >= oldest else None
    after = entry._replace(state=state, stop=stop, successor=successor)
    return Change(after, reason if state is not entry.state else None, opens)


REQUESTS: Final = (RoomEvent.REQUESTED, RoomEvent.REQUESTED_LATER, RoomEvent.REQUESTED_BY_NEXT)


def _state_met(entry: OpenRoom, event: RoomEvent) -> RoomState:
    """Return the entry's state as an event finds it: by rule 1, ending may come earlier for a request."""
    return ENDING if event in REQUESTS and entry.ending else entry.state


def _newer(one: str | None, other: str | None) -> str | None:
    if one is None or other is None:
        return one or other
    return one if unpack(one).request.asked_at > unpack(other).request.asked_at else other


def meets(entry: OpenRoom, request: RoomRequest, changes: Sequence[SessionChange] = ()) -> RoomEvent | None:
    """Return which event a request is to an entry, or None if the request is of an older session.

    `changes` is what the room's webhooks say of its sessions. If they say when the request's session started, that
    counts instead of when the request was created, if it is earlier: a webhook such as `transcription.finished` may be
    created when its session is over.
    """
    if request.webhook is None:
        return RoomEvent.REQUESTED
    if None not in (request.session_id, entry.session_id):
        if request.session_id == entry.session_id:
            return RoomEvent.REQUESTED
        began = min(begun(request.session_id, changes), request.asked_at)
        if began < entry.asked_at:
            return None
        return RoomEvent.REQUESTED_BY_NEXT if began > entry.asked_at else RoomEvent.REQUESTED_LATER
    if request.asked_at > entry.asked_at:
        # Rule 5, for the entry's own request.
        entry_over = entry.session_id is None and are_two(_later_sessions(entry, changes) | {request.session_id})
        return RoomEvent.REQUESTED_BY_NEXT if entry_over else RoomEvent.REQUESTED_LATER
    return None if entry.ending and request.asked_at < entry.asked_at else RoomEvent.REQUESTED


def _later_sessions(entry: OpenRoom, changes: Sequence[SessionChange]) -> set[str | None]:
    """Return the sessions that are known to be later than an entry's request."""
    successor = None if entry.successor is None else unpack(entry.successor).request
    waiting = {successor.session_id} if successor is not None and successor.asked_at > entry.asked_at else set[None]()
    return waiting | started_after(entry.asked_at, changes)


def needs_changes(entry: OpenRoom | None, request: RoomRequest) -> bool:
    """Return True if `requested` must know what the room's webhooks say of its sessions."""
    # A request by hand is for now, even if the room's session has ended.
    if request.webhook is None:
        return False
    event = None if entry is None else meets(entry, request)
    return entry is None or (event is not None and _state_met(entry, event) in RULES[event])


def is_unnamed(entry: OpenRoom) -> bool:
    """Return True if an entry or its successor names no session: `session_changed` and `moved` then need `changes`."""
    return entry.session_id is None or (
        entry.successor is not None and unpack(entry.successor).request.session_id is None
    )


def requested(
    entry: OpenRoom | None, request: RoomRequest, changes: Sequence[SessionChange], now: float | None
) -> RequestOutcome:
    """Return the answer to a request, and what it changes. What it opens may be the request itself.

    `changes` is what the room's webhooks say of its sessions, if `needs_changes`; `now` is by the store's clock.
    """
    over = request.webhook is not None and is_over(request, changes)
    if entry is None:
        if over:
            return RequestOutcome(RoomClaim(False, ENDED, None))
        return RequestOutcome(RoomClaim(True, WAITING, None), opens=Successor(request))
    event = meets(entry, request, changes)
    if event is None:
        return RequestOutcome(RoomClaim(False, entry.state, entry.owner, outdated=True))
    if over:
        return _answer(entry, RoomClaim(False, ENDED, None), _requested_too_late(entry, event, request))
    changed = change(entry, event, ANOTHER_STARTED, asked=pack(request, now))
    if changed.opens is not None:
        return _answer(entry, RoomClaim(True, WAITING, None), changed)
    kept = changed.entry.successor if _state_met(entry, event) in RULES[event] else None
    # The successor stands for this request, too, unless it is known to be of another session: then that is newer.
    follows = kept is not None and not differ(unpack(kept).request, request)
    outdated = kept is not None and not follows
    claim = RoomClaim(False, _state_met(changed.entry, event), entry.owner, successor=follows, outdated=outdated)
    return _answer(entry, claim, changed)


def _requested_too_late(entry: OpenRoom, event: RoomEvent, request: RoomRequest) -> Change:
    """Return what a request does to an entry if its own session is over: earlier sessions are over as well."""
    successor = None if entry.successor is None else unpack(entry.successor).request
    if successor is not None and differ(successor, request) and request.asked_at > successor.asked_at:
        entry = change(entry, RoomEvent.SUCCESSOR_OVER, "").entry
    return (
        change(entry, RoomEvent.SESSION_OVER, ANOTHER_STARTED)
        if event is RoomEvent.REQUESTED_BY_NEXT
        else Change(entry)
    )


def _answer(entry: OpenRoom, claim: RoomClaim, changed: Change) -> RequestOutcome:
    return RequestOutcome(claim, None if changed.entry == entry else changed, changed.opens)


def moved(entry: OpenRoom, state: RoomState, reason: str, changes: Sequence[SessionChange] = ()) -> Change | None:
    """Return what a move by the owner does to its room's entry, or None if the table does not allow it.

    `changes` is what the room's webhooks say of its sessions, if the entry `is_unnamed`.
    """
    event = MOVES.get(state)
    if event is None or entry.state not in RULES[event]:
        return None
    leaves = state in OVER and not entry.ending and entry.session_id is None and entry.successor is not None
    # An assistant that leaves on its own is not replaced in the same meeting. The successor is of that meeting, as far
    # as is known, if its session is the only one that started after the entry's request.
    if leaves and started_after(entry.asked_at, changes) == {unpack(entry.successor or "").request.session_id}:
        entry = change(entry, RoomEvent.SUCCESSOR_OVER, "").entry
    return change(entry, event, reason)


def run_ended(change: Change, reported: RunOutcome | None) -> RunOutcome | None:
    """Return how a run ended, after a change that its owner asked for; None if the run goes on.

    `reported` is how the owner says it ended. If its end was asked for before, that is why it ended, whatever is
    reported.
    """
    entry = change.entry
    if entry.state in OWNED:
        return None
    if entry.stop is not None:
        return RunOutcome.SESSION_OVER if entry.stop in (SESSION_ENDED, ANOTHER_STARTED) else RunOutcome.STOPPED
    return IMPLIED[entry.state] if reported is None else reported


def session_changed(entry: OpenRoom, said: SessionChange, changes: Sequence[SessionChange] = ()) -> Change:
    """Return what the start or the end of a session, `said` by a webhook, does to the room's entry.

    `changes` is all that the room's webhooks say of its sessions, including `said`, if the entry `is_unnamed`.
    """
    unnamed = said.started and entry.session_id is None
    over = said.ends(entry.session_id, entry.asked_at) or (unnamed and are_two(_later_sessions(entry, changes)))
    if entry.successor is not None and _ends_successor(entry, unpack(entry.successor).request, said, changes):
        entry = change(entry, RoomEvent.SUCCESSOR_OVER, "").entry
    if not over:
        return Change(entry)
    return change(entry, RoomEvent.SESSION_OVER, ANOTHER_STARTED if said.started else SESSION_ENDED)


def effect_of(before: OpenRoom, after: Change) -> str:
    """Return in words what the start or the end of a session did to the room's entry, or "" if it did nothing."""
    entry = after.entry
    if before.state is WAITING and entry.state in OVER:
        return "its room no longer waits for an assistant"
    if before.stop is None and entry.stop is not None:
        return "it ends the assistant of its room"
    if before.successor is not None and entry.successor is None and after.opens is None:
        return "the assistant that was to follow does not start"
    return ""


def _ends_successor(
    entry: OpenRoom, successor: RoomRequest, said: SessionChange, changes: Sequence[SessionChange]
) -> bool:
    if said.ends(successor.session_id, successor.asked_at) or is_end_of_third(entry.session_id, successor, said):
        return True
    return said.started and successor.session_id is None and are_two(started_after(successor.asked_at, changes))


def released(entry: OpenRoom, reason: str, too_old: float | None) -> Change:
    """Return what becomes of the room of a replica that is gone.

    `too_old` is None unless the replica has been gone for longer than `max_age`: then the room ends, and a successor
    that was created before `too_old` does not start.
    """
    if too_old is None:
        return change(entry, RoomEvent.OWNER_GONE, reason)
    return change(entry, RoomEvent.OWNER_LONG_GONE, reason, oldest=too_old)


def pack(request: RoomRequest, kept_at: float | None = None) -> str:
    """Return a request as it is stored as the successor of an entry, with the time at which it was kept."""
    return json.dumps(structs.asdict(request) | {"kept_at": kept_at})


def unpack(successor: str) -> Successor:
    """Return a request that was stored as a successor; earlier versions did not store when it was kept."""
    fields = json.loads(successor)
    kept_at = fields.pop("kept_at", None)
    return Successor(RoomRequest(**fields), kept_at)
