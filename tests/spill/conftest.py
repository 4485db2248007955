"""A spill in front of a store that can be away, without a trigger around it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType

import pytest

from tests.support.outage import AwayStore
from tests.support.stored import records_in
from tests.support.until import eventually
from whereby_trigger.clock import boot_time
from whereby_trigger.store import Record, Unread
from whereby_trigger.store.spill import SpillStore
from whereby_trigger.store.spill_file import SpillFile

LONG = 1000.0
WITHIN = 60.0


class Counted(Unread):
    moves = 0

    def fall_behind(self) -> None:
        self.moves += 1
        super().fall_behind()


class Spilling:
    """Spill what is added while the store is away, for an `async with` block.

    `unread` counts how often deliveries left the spool.
    """

    def __init__(self, folder: Path, unread: Counted | None = None) -> None:
        self.url = f"sqlite:///{folder}/webhooks.db"
        self.path = folder / "spill.db"
        self.store = AwayStore(self.url)
        self.spill_file = SpillFile(f"sqlite:///{self.path}")
        self.unread = unread or Counted()
        self.spill = SpillStore(self.store, self.spill_file, self.unread)

    async def __aenter__(self) -> "Spilling":
        await self.spill.open(lambda: None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.spill.close()

    async def records(self) -> list[Record]:
        """Read what the store holds, in its order of arrival, whether the replica reaches it or not."""
        return await records_in(self.url)

    async def ids(self) -> list[str]:
        return [record.id for record in await self.records()]

    async def drained(self) -> None:
        """Wait until nothing waits for the store."""
        await eventually(lambda: self.spill.settled and not self.spill.length, WITHIN)

    def lose_the_lease(self) -> None:
        self.store.lease.lose()

    def renew_the_lease(self) -> None:
        self.store.lease.begin(boot_time())


Open = Callable[..., Awaitable[Spilling]]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set timeouts so that a busy machine never counts as an outage, and retries come soon."""
    monkeypatch.setattr("whereby_trigger.store.spill.SPILL_AFTER", LONG)
    monkeypatch.setattr("whereby_trigger.store.spill.JOIN_WITHIN", LONG)
    monkeypatch.setattr("whereby_trigger.store.spill.SHORTEST_PAUSE", 0.05)
    monkeypatch.setattr("whereby_trigger.store.spill.LONGEST_PAUSE", 0.1)


@pytest.fixture
def impatience(patience: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up early on a silent database."""
    monkeypatch.setattr("whereby_trigger.store.spill.SPILL_AFTER", 0.2)
    monkeypatch.setattr("whereby_trigger.store.spill.JOIN_WITHIN", 0.2)


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Open]:
    """Return a function that opens one more spill on the same files, after `before`; each is closed at the end."""
    async with AsyncExitStack() as stack:

        async def open_one(before: Callable[[Spilling], None] = lambda one: None) -> Spilling:
            one = Spilling(tmp_path)
            before(one)
            return await stack.enter_async_context(one)

        yield open_one


@pytest.fixture
async def one(opened: Open) -> Spilling:
    return await opened()
