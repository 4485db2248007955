"""The junction: from where a delivery goes to the database, or into the spool, or is held; none overtakes another."""

import asyncio
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import Final

from whereby_trigger.errors import StoreBusy, StoreUnavailable
from whereby_trigger.store.futures import Write
from whereby_trigger.store.protocol import Store
from whereby_trigger.store.records import Added, Arrival
from whereby_trigger.store.spill.spool import Spool

SPILL_AFTER: Final = 2.0
"""Seconds that a delivery waits for the database: what is left until its answer must suffice for a sync to disk."""


class Way(Enum):
    """Name where deliveries go: those that are held wait for the last ones before them to leave the spool."""

    DATABASE = auto()
    SPOOL = auto()
    HELD = auto()


@dataclass(eq=False, slots=True)
class Passing:
    """Carry one delivery that has no answer yet; `sent` is the database's answer to come, None while it is held."""

    arrival: Arrival
    answer: "asyncio.Future[Added]"
    late: asyncio.TimerHandle | None = None
    sent: "asyncio.Future[Added] | None" = None

    def stop_waiting(self) -> None:
        """Wait for the database no longer."""
        if self.late is not None:
            self.late.cancel()


class Junction:
    """Send deliveries into the spool, until told to release them into the database.

    Where the database refuses or does not answer in time, all that has no answer yet goes into the spool, in order,
    and so does what follows. What the database stores all the same is found to be a duplicate later.
    """

    def __init__(self, store: Store, spool: Spool) -> None:
        self._store = store
        self._spool = spool
        self._way = Way.SPOOL
        self._passing: dict[Passing, None] = {}
        self.diverted = asyncio.Event()
        self.why = ""

    @property
    def direct(self) -> bool:
        """Whether deliveries go to the database."""
        return self._way is Way.DATABASE

    def add(self, arrival: Arrival) -> "asyncio.Future[Added]":
        """Have a delivery stored, by the database or on the spool's disk."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Added] = loop.create_future()
        if self._way is Way.SPOOL:
            self._append(arrival, answer)
        else:
            passing = Passing(arrival, answer)
            passing.late = loop.call_later(SPILL_AFTER, self._divert_late, passing)
            self._passing[passing] = None
            if self._way is Way.DATABASE:
                self._send(passing)
        return answer

    def divert(self, why: str) -> None:
        """Send deliveries into the spool, and keep in words why."""
        self._way, self.why = Way.SPOOL, why
        passing, self._passing = self._passing, {}
        for one in passing:
            one.stop_waiting()
            if one.sent is not None:
                # What the store has not begun it leaves out then, so that it comes in behind those before it.
                one.sent.cancel()
            self._append(one.arrival, one.answer)
        self.diverted.set()

    def hold(self) -> None:
        """Let deliveries wait where they are, as long as they would wait for the database."""
        self._way = Way.HELD

    def release(self) -> None:
        """Send deliveries to the database."""
        self._way = Way.DATABASE
        self.diverted.clear()
        for passing in self._passing:
            if passing.sent is None:
                self._send(passing)

    def _send(self, passing: Passing) -> None:
        passing.sent = asyncio.ensure_future(self._store.add(passing.arrival))
        passing.sent.add_done_callback(partial(self._answered, passing))

    def _divert_late(self, passing: Passing) -> None:
        # One whose row somebody has locked waits alone: the database takes all others.
        if not (isinstance(passing.sent, Write) and passing.sent.held_up):
            self.divert(f"the database did not answer within {SPILL_AFTER:g} s")

    def _answered(self, passing: Passing, sent: "asyncio.Future[Added]") -> None:
        error = StoreUnavailable("it gave no answer") if sent.cancelled() else sent.exception()
        if passing not in self._passing:
            return
        if isinstance(error, StoreUnavailable) and not isinstance(error, StoreBusy):
            self.divert(str(error))
            return
        del self._passing[passing]
        passing.stop_waiting()
        _settle(passing.answer, error or sent.result())

    def _append(self, arrival: Arrival, answer: "asyncio.Future[Added]") -> None:
        self._spool.append(arrival).add_done_callback(partial(_appended, arrival, answer))


def _appended(arrival: Arrival, answer: "asyncio.Future[Added]", written: "asyncio.Future[None]") -> None:
    error = StoreUnavailable("the spill was closed") if written.cancelled() else written.exception()
    if isinstance(error, StoreUnavailable):
        error = StoreUnavailable(f"the database does not take it, and {error}")
    _settle(answer, error or Added(0, False, arrival.state, spilled=True))


def _settle(answer: "asyncio.Future[Added]", outcome: Added | BaseException) -> None:
    if answer.done():
        return
    if isinstance(outcome, Added):
        answer.set_result(outcome)
    else:
        answer.set_exception(outcome)
