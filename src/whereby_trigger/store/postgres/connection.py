"""A connection to PostgreSQL: opened within a time limit, and replaced if it is lost; its errors, and its queries.

An error is classified: the database refused a value, another transaction has locked a row, or it is an outage.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from whereby_trigger.errors import StoreBusy, StoreError, StoreUnavailable
from whereby_trigger.loggers import own_logger
from whereby_trigger.store.postgres.address import DatabaseAddress, FollowedAddress, look_up
from whereby_trigger.store.protocol import ignore_result
from whereby_trigger.webhook import room_path

logger = own_logger("whereby_trigger.store")


if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    # Only its stubs take a type of rows.
    Connection = asyncpg.Connection


async def one_row(connection: Connection, query: str, *arguments: Any) -> asyncpg.Record:
    """Return the one row of a query that always has one."""
    (row,) = await connection.fetch(query, *arguments)
    return row


T = TypeVar("T")

CONNECT_WITHIN = 4.0
CLOSE_WITHIN = 1.0
NEXT_HOST_AFTER = 1.0
"""Seconds that one of several hosts has to answer before the next one is tried beside it."""

LOCK_WITHIN = 3.0
BRIEFLY = 0.025
"""Seconds that work waits for a lock: usually, and with `briefly`, if another transaction may hold it for long."""

LIMITS = """
SET {scope} lock_timeout = '{lock:.0f}ms';
SET {scope} statement_timeout = '{within:g}s';
SET {scope} idle_in_transaction_session_timeout = '2s';
"""
"""The server must stop what we no longer wait for. And a replica that freezes or vanishes in a transaction must not
hold its locks until TCP times out, nor so long that others give up.
"""

PLANS = "SET enable_seqscan = off; SET jit = off;"
"""For a session of a replica, in which the driver keeps statements, and the server their plans, for minutes.

A plan that is made while the store is empty would read whole tables, also when they have grown, until the server
analyzes them, usually within a minute. All that a replica asks often has an index. The server must not compile plans
either: before PostgreSQL 18 a disabled step counts as so costly that it would. Behind a pooler no plan is kept.
"""

PINNED = """
SELECT set_config('synchronous_commit', COALESCE(NULLIF(current_setting('synchronous_commit'), 'off'), 'on'), {local});
"""
"""Makes a replica's commits wait for the disk, even if the server, database or role is reconfigured later."""

WRITABLE = "SELECT FROM whereby_trigger.replicas LIMIT 0 FOR UPDATE;"
"""A query that fails on a standby and in a read-only session, whose data may be stale."""


class ManagedConnection:
    """Keep one connection, for one piece of work at a time, and reconnect when it is lost.

    Work that takes longer than `within` seconds is given up together with the connection: it may or may not be done.
    Work waits for a lock for at most `lock_within` seconds. With `serving`, as replicas use it, the connection must
    take writes, and its commits wait for the disk.
    """

    def __init__(
        self,
        address: DatabaseAddress | FollowedAddress,
        within: float,
        *,
        lock_within: float = LOCK_WITHIN,
        serving: bool = False,
    ) -> None:
        self._address = address
        self._within = within
        self._lock_within = lock_within
        self._serving = serving
        self._connection: Connection | None = None
        self._pooled = address.pooler is True
        self._first = 0

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, briefly: bool = False) -> T:
        """Do work; with `briefly`, in a transaction that waits for a lock for BRIEFLY seconds only.

        Raises the errors of the database, the driver and the network, and TimeoutError. After an error the connection
        is dropped, unless the error is known to leave it usable.
        """
        connection = await self._connected()
        try:
            return await _bounded(connection, self._wrapped(connection, work, briefly), self._within)
        except BaseException as error:
            if not leaves_connection_usable(error):
                connection.terminate()
            raise

    async def close(self) -> None:
        """Close the connection, within CLOSE_WITHIN seconds."""
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
        # A pooler may send each transaction to another server process, which lacks statements prepared before.
        statements = {"statement_cache_size": 0} if pooled else {}
        settings = {"application_name": "whereby-trigger"}
        try:
            async with asyncio.timeout(CONNECT_WITHIN):
                return await self._first_to_answer(partial(asyncpg.connect, server_settings=settings, **statements))
        except TimeoutError:
            raise TimeoutError(f"no answer within {CONNECT_WITHIN:g} s") from None

    async def _first_to_answer(self, connect: Callable[[str], Awaitable[Connection]]) -> Connection:
        """Return a connection to a host that answers; a silent host must not keep us from the others.

        An attempt tries all hosts, each after the one before has refused. If it hangs, the next attempt begins with
        another host, beside it.
        """
        address = await self._address.current()
        dsns, hosts = (address.dsn, *address.others), address.hosts

        async def attempt(first: int) -> Connection:
            await look_up(hosts[first:] + hosts[:first])
            return await connect(dsns[first])

        attempts: dict[asyncio.Task[Connection], int] = {}
        done: set[asyncio.Task[Connection]] = set()
        try:
            for number in range(len(dsns)):
                first = (self._first + number) % len(dsns)
                attempts[asyncio.create_task(attempt(first))] = first
                pause = NEXT_HOST_AFTER if number + 1 < len(dsns) else None
                done, _ = await asyncio.wait(attempts, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                if done:
                    break
            chosen = min(done, key=lambda task: task.exception() is not None)
            self._first = attempts[chosen]
            attempts.pop(chosen)
            return chosen.result()
        finally:
            for task in attempts:
                task.cancel()
                task.add_done_callback(_drop)

    async def _wrapped(self, connection: Connection, work: Callable[[Connection], Awaitable[T]], briefly: bool) -> T:
        if not self._pooled and not briefly:
            return await work(connection)
        async with transaction(connection, self._conditions("LOCAL", briefly=briefly)):
            return await work(connection)

    def _conditions(self, scope: str, *, briefly: bool = False) -> str:
        """Return the settings of a session or transaction, which are sent with its first statement."""
        lock = BRIEFLY if briefly else self._lock_within
        limits = LIMITS.format(scope=scope, within=self._within, lock=lock * 1000)
        if not self._serving:
            return limits
        plans = PLANS if scope == "SESSION" else ""
        return limits + plans + PINNED.format(local=str(scope == "LOCAL").lower()) + WRITABLE


def _drop(attempt: "asyncio.Task[Connection]") -> None:
    """Close a connection that was opened too late."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().terminate()


async def _bounded(connection: Connection, work: Coroutine[Any, Any, T], within: float) -> T:
    """Wait at most `within` seconds for work; then it is given up together with the connection."""
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait({working}, timeout=within)
    finally:
        # Not cancelled: the driver would then ask the server to cancel, over a network that may be what hangs.
        late = not working.done()
        if late:
            connection.terminate()
            await asyncio.wait({working})
            ignore_result(working)
    if late and working.exception() is not None:
        raise TimeoutError(f"no answer within {within:g} s")
    return working.result()


@asynccontextmanager
async def transaction(connection: Connection, limits: str = "") -> AsyncIterator[None]:
    """Run the block in one transaction: the current one, or a new one under `limits`."""
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
    """Run the block in a transaction, and roll it back."""
    async with transaction(connection):
        await connection.execute("SAVEPOINT trial")
        yield
        await connection.execute("ROLLBACK TO SAVEPOINT trial")


def affected(tag: str) -> int:
    """Return the number of rows in a command's tag, such as `DELETE 3`."""
    return int(tag.rpartition(" ")[2])


async def _is_pooled(connection: Connection) -> bool:
    """Return True if the server process that answers is not the one that greeted: a pooler greets itself.

    Source: PgBouncer makes up the process id and cancellation key that it sends at the start.
    """
    return bool(await _tried(connection, _answering(connection)) != connection.get_server_pid())


async def _tried(connection: Connection, work: Coroutine[Any, Any, T]) -> T:
    """Prepare a new connection for use; it is dropped if that fails."""
    try:
        return await _bounded(connection, work, CONNECT_WITHIN)
    except BaseException:
        connection.terminate()
        raise


async def _answering(connection: Connection) -> int:
    async with transaction(connection):
        # Without a name: a pooler keeps a named statement in the server's process, where the next replica meets it.
        answering = await connection.prepare("SELECT pg_backend_pid()", name="")
        return int(await answering.fetchval())


DATA = ("22", "23")
"""The classes of SQLSTATE about values: data exceptions and violated constraints.

Source: PostgreSQL docs, Appendix A, PostgreSQL Error Codes.
"""

OF_VALUES = (ValueError, TypeError, LookupError, ArithmeticError)
"""What Python and the driver raise about values; the driver's own errors of this kind are ValueErrors."""

READ_ONLY = "25006"
CONTENTION = ("55P03", "40P01", "40001")
"""A lock not granted in time, a deadlock, a conflict: nothing was changed."""

ADVICE = {
    "28": "check user and password, and that the server's pg_hba.conf lets this machine in",
    "3D": "create the database, or name another",
    "42501": "grant it, or run `whereby-trigger db migrate` as the role that owns the schema whereby_trigger",
    "42704": "leave that option out of the URL",
    "53300": "allow more connections (max_connections; each replica takes up to 8), or put a pooler before it",
    "55P03": "another transaction has locked what must be changed: find it in pg_stat_activity, and try again",
    "57P03": "try again when it has started",
}
"""What to do if a database refuses us, by SQLSTATE or its class."""

REFUSALS = ("28", "3D", "42")
"""The classes about who we are, which database we want and what we may do there: trying again changes nothing."""


def is_refusal(error: BaseException) -> bool:
    """Return True if an error is known to be about values, so trying again makes no sense.

    A shortage of threads, files or memory is not.
    """
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "")[:2] in DATA
    if isinstance(error, StoreError):
        return not isinstance(error, StoreUnavailable)
    return isinstance(error, OF_VALUES) and not isinstance(error, asyncpg.ClientConfigurationError)


def is_contention(error: BaseException) -> bool:
    """Return True if another transaction has locked a row that we want to change."""
    return isinstance(error, asyncpg.PostgresError) and error.sqlstate in CONTENTION


def leaves_connection_usable(error: BaseException) -> bool:
    """Return True if the connection can do other work after an error.

    After any other error a new connection may do better: this one may lead to a standby, be read-only until it is
    closed, keep plans that no longer fit, or belong to a pooler that lost its server.
    """
    return is_refusal(error) or is_contention(error)


def in_words(error: BaseException) -> StoreError:
    """Return the StoreError to raise to the caller for an error of the database, the driver or the network."""
    if isinstance(error, StoreError):
        return error
    if is_contention(error):
        return StoreBusy(f"another transaction has locked it, see pg_stat_activity: {describe(error)}")
    if not is_refusal(error):
        return StoreUnavailable(f"the database is unavailable: {describe(error)}{_read_only(error)}")
    # The text of such an error may contain a value, and in it a person's name.
    return StoreError(f"the store refused a value: {type(error).__name__}")


def _read_only(error: BaseException) -> str:
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate == READ_ONLY:
        return "; it is read-only: a standby, or default_transaction_read_only is on"
    return ""


def unusable(location: str, error: Exception) -> StoreError:
    """Return an error that says why a database cannot be opened, and what to do."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, asyncpg.PostgresError):
        return _refusal(location, error)
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return StoreUnavailable(
            f"the store {location} has no host that takes writes now: name the primary's endpoint too, or try again "
            "once there is a primary"
        )
    if isinstance(error, asyncpg.ClientConfigurationError | ValueError | LookupError | OverflowError):
        return StoreError(
            f"the store {location} cannot be found: {describe(error)}; correct its URL, or the PG variables and the "
            "service file, which complete the URL"
        )
    return StoreUnavailable(f"the store {location} cannot be reached: {describe(error)}; {_way_to_it(error)}")


def _refusal(location: str, error: asyncpg.PostgresError) -> StoreError:
    state = error.sqlstate or ""
    advice = ADVICE.get(state) or ADVICE.get(state[:2]) or "see the server's log"
    kind = StoreError if state[:2] in REFUSALS else StoreUnavailable
    return kind(f"the store {location} refuses us: {describe(error)}; {advice}")


def _way_to_it(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) or "SSL" in str(error):
        return "check that sslmode and sslrootcert fit the server"
    if isinstance(error, FileNotFoundError | PermissionError):
        return "check that it runs, and that we can read the socket or certificate in its URL"
    return "check that it runs, and that host and port are right"


def describe(error: BaseException) -> str:
    """Return an error's first line, without the values of a statement."""
    text = str(error).partition("\n")[0]
    return text or type(error).__name__


class Selection:
    """Collect the conditions of a WHERE, and the values of their parameters."""

    def __init__(self, *first: Any) -> None:
        self._clauses = ["true"]
        self.values = [*first]

    @property
    def conditions(self) -> str:
        """All conditions, joined."""
        return " AND ".join(self._clauses)

    def where(self, clause: str, *values: Any) -> None:
        """Add a condition, in which each {} stands for a value."""
        numbers = range(len(self.values) + 1, len(self.values) + 1 + len(values))
        self._clauses.append(clause.format(*(f"${number}" for number in numbers)))
        self.values.extend(values)

    def where_room(self, room: str) -> None:
        """Add the condition that a row is of a room, given as a key or a name, by the index of names."""
        name = "substr(key, strpos(key, '/')) = {}"
        if room.startswith("/"):
            self.where(name, room_path(room))
        else:
            self.where(name, "/" + room.partition("/")[2])
            self.where("key = {}", room)

    def ordered(self, order: str, limit: int | None) -> str:
        """Return all conditions, the order, and the limit."""
        bound = "" if limit is None else f"LIMIT {int(limit)}"
        return f"WHERE {self.conditions} ORDER BY {order} {bound}"
