"""The backlog: what is pending in the store and not queued here, taken over, read back and queued."""

import logging

from whereby_trigger.assist import Supervisor
from whereby_trigger.clock import MACHINE, Clock
from whereby_trigger.decide.dispatcher import Dispatcher
from whereby_trigger.decide.pending import from_store
from whereby_trigger.errors import DecodeError, StoreError
from whereby_trigger.store import Decision, Pending, State, Store, Unread
from whereby_trigger.webhook import redacted

logger = logging.getLogger("whereby_trigger.decide")

REREAD = 5.0
"""Seconds between looks at this replica's own pending webhooks."""

TAKEOVER = 0.5
"""Seconds between looks for webhooks whose replica is dead, which no write of another process announces."""

MAKE_ROOM = 0.05
"""Seconds after which the rest of the backlog is tried again, while some of it has no room in memory."""

PAGE = 500


class Backlog:
    """Take over what nobody decides, and queue what is this replica's and not queued."""

    def __init__(
        self,
        store: Store,
        supervisor: Supervisor,
        dispatcher: Dispatcher,
        unread: Unread,
        *,
        max_age: float,
        subdomain: str | None = None,
        clock: Clock = MACHINE,
        redact: tuple[str, ...] = (),
    ) -> None:
        self._redact = redact
        self._clock = clock
        self._store = store
        self._supervisor = supervisor
        self._dispatcher = dispatcher
        self._unread = unread
        self._max_age = max_age
        self._subdomain = subdomain
        self._claim_at = 0.0
        self._read_at = 0.0

    def take_over(self) -> None:
        """Look now whether there is something to take over."""
        self._claim_at = 0.0
        self._unread.woken.set()

    async def run(self) -> None:
        """Look at once, when told to, and every few seconds, until cancelled."""
        while True:
            self._unread.woken.clear()
            try:
                await self._look()
            except StoreError as error:
                fields = {"replica": self._store.replica}
                logger.warning("pending webhooks cannot be read back now: %s", error, extra=fields)
                self._dispatcher.cannot_read()
                self._claim_at, pause = 0.0, TAKEOVER
            else:
                pause = MAKE_ROOM if self._dispatcher.behind else TAKEOVER
            await self._clock.poll(self._unread.woken, pause)

    async def _look(self) -> None:
        now = self._clock.boot()
        if now >= self._claim_at:
            self._claim_at = now + TAKEOVER
            if await self._store.take_over(self._max_age):
                self._dispatcher.fall_behind()
                self._supervisor.wake()
        if self._unread.behind or self._unread.due or now >= self._read_at:
            self._unread.due, self._read_at = False, now + REREAD
            await self._read()

    async def _read(self) -> None:
        if not self._dispatcher.has_room:
            return
        self._dispatcher.begin_reading()
        complete, after = False, 0
        try:
            while True:
                rows = await self._store.pending(after, PAGE)
                if not await self._queue_each(rows):
                    break
                if len(rows) < PAGE:
                    complete = True
                    break
                after = rows[-1].seq
        finally:
            self._dispatcher.end_reading(complete=complete)

    async def _queue_each(self, rows: list[Pending]) -> bool:
        for row in rows:
            if not await self._queue(row):
                return False
        return True

    async def _queue(self, row: Pending) -> bool:
        if self._dispatcher.knows(row.seq):
            return True
        try:
            return self._dispatcher.resubmit(from_store(row, self._subdomain, self._clock.boot()))
        except DecodeError as error:
            reason = str(error)
            body = redacted(row.body, self._redact) if self._redact else None
            at = self._clock.wall()
            await self._store.decide(Decision(row.seq, row.id, State.QUARANTINED, reason, 0, at, body=body))
            return True
