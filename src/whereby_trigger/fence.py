"""Self-fencing: renews the lease; if it cannot be renewed, ends the assistants before it is over."""

import asyncio

from whereby_trigger.assist import Supervisor
from whereby_trigger.clock import RENEWALS, boot_time
from whereby_trigger.decide import Dispatcher
from whereby_trigger.errors import StoreError
from whereby_trigger.loggers import own_logger
from whereby_trigger.process import Watchdog
from whereby_trigger.store import Store, Unread
from whereby_trigger.store.protocol import ignore_result

logger = own_logger("whereby_trigger.assist")
"""The fence logs under the name of the assistants, which end with the lease."""

CUT_OFF_BEFORE = 1.0
"""An assistant that was told to end is cancelled this many seconds before the lease is over."""

LOOK = 0.2
"""Seconds between looks at the clock while nothing is to do for the lease.

Timers stand still while the machine sleeps. When it goes on, the watchdog leaves half a second to end what runs.
"""


class Fence:
    """Renew a store's lease. If that fails, end the assistants before it is over; then start again under a new id."""

    def __init__(
        self, store: Store, supervisor: Supervisor, dispatcher: Dispatcher, unread: Unread, watchdog: Watchdog
    ) -> None:
        self._store = store
        self._supervisor = supervisor
        self._dispatcher = dispatcher
        self._unread = unread
        self._watchdog = watchdog
        # When the store was asked to renew the lease, and its answer; None if no answer is awaited.
        self._asked: tuple[float, asyncio.Future[bool]] | None = None
        # True from when assistants are told to end until the lease is renewed or a new one begins.
        self._suspended = False
        self._ending: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Let assistants run until the lease's new deadline, unless it has passed already."""
        lease = self._store.lease
        if not lease.held:
            return
        if self._supervisor.slots:
            # Within the margin: from the end of the lease on, others may start assistants in these rooms.
            self._watchdog.set("the lease", lease.deadline, lambda: self._supervisor.running, lease.margin)
        self._supervisor.extended(lease.deadline)
        if self._suspended:
            self._resume()

    async def keep(self) -> None:
        """Renew the lease, or get a new one, until cancelled."""
        lease = self._store.lease
        renewed: bool | None = True
        while True:
            due = boot_time() + (lease.ttl / RENEWALS if renewed else lease.margin)
            while (left := due - boot_time()) > 0:  # noqa: ASYNC110 - it waits for the time itself
                await asyncio.sleep(min(left, LOOK))
            renewed = await self._renew() if lease.held else False
            if renewed is False or not lease.held:
                await self._rejoin()
            elif renewed is None and boot_time() > lease.deadline - lease.notice:
                self._endangered()

    async def _renew(self) -> bool | None:
        """Ask for the lease to be renewed; return None if it is not known yet whether it is.

        A call that the store has not answered is not repeated: the next `_renew` waits for the same answer.
        """
        try:
            return await self._ask()
        except Exception as error:
            # Whatever it is, the lease runs out, and assistants must leave before: a lack of memory is no StoreError.
            self._asked = None
            self._warn("the lease was not renewed", error)
            return None

    async def _ask(self) -> bool | None:
        lease = self._store.lease
        if self._asked is None:
            self._asked = boot_time(), asyncio.ensure_future(self._store.renew(lease.ttl))
            # Once the lease is lost, nobody retrieves the answer, which may be an exception.
            self._asked[1].add_done_callback(ignore_result)
        sent, answer = self._asked
        await asyncio.wait({answer}, timeout=lease.margin)
        if not answer.done():
            return None
        self._asked = None
        if renewed := answer.result():
            self._begin_at(sent)
        return renewed

    async def _rejoin(self) -> None:
        self._warn("the lease has run out: starting again under another id")
        self._store.lease.lose()
        self._asked = None
        await self._lost()
        sent = boot_time()
        try:
            await self._store.rejoin(self._store.lease.ttl)
        except Exception as error:
            self._warn("no new lease yet", error)
        else:
            self._begin_at(sent)

    def _warn(self, what: str, error: Exception | None = None) -> None:
        text = what if error is None else f"{what}: {_in_words(error)}"
        logger.warning("%s", text, extra={"replica": self._store.replica})

    def _begin_at(self, sent: float) -> None:
        if not self._store.lease.held:
            # Webhooks that were due meanwhile were left in the store; the backlog may have read and dropped them.
            self._unread.fall_behind()
        self._store.lease.begin(sent)
        self.begin()

    def _resume(self) -> None:
        self._suspended = False
        if self._ending is not None:
            self._ending.cancel()
        self._unread.look()
        self._supervisor.resume()

    def _endangered(self) -> None:
        if not self._suspended:
            self._suspended = True
            self._ending = asyncio.create_task(self._end_in_time())

    async def _end_in_time(self) -> None:
        lease = self._store.lease
        remaining = lease.deadline - boot_time() - min(CUT_OFF_BEFORE, lease.ttl / 30)
        try:
            async with asyncio.timeout(max(0.0, remaining)):
                await self._supervisor.hand_over("the store cannot be reached, and the lease runs out")
        except TimeoutError:
            await self._supervisor.cut_off("the lease runs out")

    async def _lost(self) -> None:
        self._suspended = True
        await self._supervisor.cut_off("the lease has run out")
        await self._dispatcher.cancel()


def _in_words(error: Exception) -> str:
    # The text of another error may hold parts of a delivery.
    return str(error) if isinstance(error, StoreError) else type(error).__name__
