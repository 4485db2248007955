"""One connection to the database: opened when it is needed, given up when it was lost, hangs or is of no use."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg

from whereby_trigger.store.futures import let_pass
from whereby_trigger.store.postgres.address import Address
from whereby_trigger.store.postgres.failure import leaves_connection_usable
from whereby_trigger.store.postgres.look_up import look_up

Connection = Any
"""An asyncpg connection, which brings no types."""

T = TypeVar("T")

CONNECT_WITHIN = 4.0
CLOSE_WITHIN = 1.0

LOCK_WITHIN = 3.0
BRIEFLY = 0.025
"""Seconds that work waits for a lock: usually, and when it is known that somebody else may hold it for long."""

LIMITS = """
SET {scope} lock_timeout = '{lock:.0f}ms';
SET {scope} statement_timeout = '{within:g}s';
SET {scope} idle_in_transaction_session_timeout = '2s';
"""
"""What we wait for no longer, the server must not go on with; and a replica that freezes or vanishes in a transaction
must not hold its locks for as long as TCP believes in it, nor for so long that others give up.
"""

PINNED = """
SELECT set_config('synchronous_commit', COALESCE(NULLIF(current_setting('synchronous_commit'), 'off'), 'on'), {local});
"""
"""A replica's sessions wait for the disk whatever the server, the database or the role is told later."""

WRITABLE = "SELECT FROM whereby_trigger.replicas LIMIT 0 FOR UPDATE;"
"""A read that a standby refuses, and a session that is read-only: what they show may be old."""


class Link:
    """Keep one connection, for one piece of work at a time.

    Work that takes longer than `within` seconds is given up together with the connection: it may be done or not.
    It waits for a lock for at most `lock_within` seconds. The connection of a replica at work is `serving`: it is used
    only where it takes writes, and its commits wait for the disk.
    """

    def __init__(
        self, address: Address, within: float, *, lock_within: float = LOCK_WITHIN, serving: bool = False
    ) -> None:
        self._address = address
        self._within = within
        self._lock_within = lock_within
        self._serving = serving
        self._connection: Connection | None = None
        self._pooled = address.pooler is True

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, briefly: bool = False) -> T:
        """Do work, in a transaction that hardly waits for a lock with `briefly`.

        Raises what the database, the driver or the network raise, and TimeoutError. After an error the connection is
        given up, unless the error is known to leave it usable.
        """
        connection = await self._connected()
        try:
            return await _bounded(connection, self._wrapped(connection, work, briefly), self._within)
        except BaseException as error:
            if not leaves_connection_usable(error):
                connection.terminate()
            raise

    async def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is None or connection.is_closed():
            return
        closing = asyncio.ensure_future(connection.close())
        await asyncio.wait({closing}, timeout=CLOSE_WITHIN)
        if not closing.done():
            connection.terminate()
            await asyncio.wait({closing})
        closing.exception()

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect(self._address.pooler is True)
            if self._address.pooler is None and await _is_pooled(self._connection):
                await self.close()
                self._connection = await self._connect(True)
            if not self._pooled:
                await _tried(self._connection, self._connection.execute(self._conditions("SESSION")))
        return self._connection

    async def _connect(self, pooled: bool) -> Connection:
        self._pooled = pooled
        # A pooler may give each transaction to another server process, which knows no statement prepared before.
        statements = {"statement_cache_size": 0} if pooled else {}
        settings = {"application_name": "whereby-trigger"}
        try:
            async with asyncio.timeout(CONNECT_WITHIN):
                await look_up(self._address.hosts)
                return await asyncpg.connect(self._address.dsn, server_settings=settings, **statements)
        except TimeoutError:
            raise TimeoutError(f"no answer within {CONNECT_WITHIN:g} s") from None

    async def _wrapped(self, connection: Connection, work: Callable[[Connection], Awaitable[T]], briefly: bool) -> T:
        if not self._pooled and not briefly:
            return await work(connection)
        async with transaction(connection, self._conditions("LOCAL", briefly=briefly)):
            return await work(connection)

    def _conditions(self, scope: str, *, briefly: bool = False) -> str:
        """Return what a session, or a transaction, begins with; it is sent along with its first statement."""
        lock = BRIEFLY if briefly else self._lock_within
        limits = LIMITS.format(scope=scope, within=self._within, lock=lock * 1000)
        if not self._serving:
            return limits
        return limits + PINNED.format(local=str(scope == "LOCAL").lower()) + WRITABLE


async def _bounded(connection: Connection, work: Coroutine[Any, Any, T], within: float) -> T:
    """Wait for work, at most `within` seconds; then it is given up together with the connection."""
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait({working}, timeout=within)
    finally:
        # Cancelling would have the driver ask the server to cancel, over a network that may be what hangs.
        late = not working.done()
        if late:
            connection.terminate()
            await asyncio.wait({working})
            let_pass(working)
    if late and working.exception() is not None:
        raise TimeoutError(f"no answer within {within:g} s")
    return working.result()


@asynccontextmanager
async def transaction(connection: Connection, limits: str = "") -> AsyncIterator[None]:
    """Do what is in the block in one transaction: the one that is on, or a new one under `limits`."""
    if connection.is_in_transaction():
        yield
        return
    try:
        await connection.execute(f"BEGIN ISOLATION LEVEL READ COMMITTED; {limits}")
        yield
        await connection.execute("COMMIT")
    except BaseException:
        if not connection.is_closed() and connection.is_in_transaction():
            await connection.execute("ROLLBACK")
        raise


@asynccontextmanager
async def rolled_back(connection: Connection) -> AsyncIterator[None]:
    """Try what is in the block, and take it back."""
    async with transaction(connection):
        await connection.execute("SAVEPOINT trial")
        yield
        await connection.execute("ROLLBACK TO SAVEPOINT trial")


def affected(tag: str) -> int:
    """Read from a command's tag, such as `DELETE 3`, how many rows it was about."""
    return int(tag.rpartition(" ")[2])


async def _is_pooled(connection: Connection) -> bool:
    """Tell whether the process that answers is another than the one that greeted: a pooler greets for itself.

    Source: PgBouncer makes up the process id and key for cancelling that it sends at the start.
    """
    return bool(await _tried(connection, _answering(connection)) != connection.get_server_pid())


async def _tried(connection: Connection, work: Coroutine[Any, Any, T]) -> T:
    """Do what makes a new connection fit for use; one that is not must not be used."""
    try:
        return await _bounded(connection, work, CONNECT_WITHIN)
    except BaseException:
        connection.terminate()
        raise


async def _answering(connection: Connection) -> int:
    async with transaction(connection):
        return int(await connection.fetchval("SELECT pg_backend_pid()"))
