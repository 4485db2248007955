"""A connection to PostgreSQL: opened by a URL within a time limit, and replaced if it is lost."""

import asyncio
import logging
import re
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from configparser import Error as NotReadable
from configparser import RawConfigParser
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

import asyncpg

from whereby_trigger.errors import ConfigError
from whereby_trigger.store.postgres.errors import leaves_connection_usable
from whereby_trigger.store.protocol import ignore_result
from whereby_trigger.threads import in_thread

logger = logging.getLogger("whereby_trigger.store")


async def look_up(hosts: Sequence[str]) -> None:
    """Wait until the name of one of these hosts is resolved; return at once if there are none.

    It uses a thread of its own: an event loop waits at its end for look-ups of its own, and warns of abandoned ones.
    Raises OSError if no host is known, and UnicodeError if none can be a name.
    """
    if not hosts:
        return
    loop = asyncio.get_running_loop()
    found: asyncio.Future[None] = loop.create_future()

    def tell(error: Exception | None) -> None:
        if found.done():
            return
        if error is None:
            found.set_result(None)
        else:
            found.set_exception(error)

    def look() -> None:
        error = _error_of(hosts)
        # The loop may have been closed meanwhile.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, error)

    threading.Thread(target=look, name="whereby-trigger look-up", daemon=True).start()
    await found


def _error_of(hosts: Sequence[str]) -> Exception | None:
    """Return None if one of the hosts is known, otherwise the last error."""
    unknown: Exception | None = None
    for host in hosts:
        try:
            socket.getaddrinfo(host, None)
        except (OSError, UnicodeError) as error:
            unknown = error
        else:
            return None
    return unknown


class Services(NamedTuple):
    """Hold PostgreSQL's settings from the environment: the default service, and the file that describes services.

    `host` and `port` are the database's if neither the URL nor a service names them.
    """

    default: str | None = None
    file: Path | None = None
    host: str = ""
    port: str = ""

    def options(self, name: str | None) -> Mapping[str, str]:
        """Return the options of a service, or of the default one, with its name as `service`; empty without one.

        The driver would ignore an unknown name and PGSERVICE, and misread a % in a password.
        Raises ConfigError if the file does not describe the service.
        Source: PostgreSQL docs, libpq, The Connection Service File.
        """
        name = name or self.default
        if not name:
            return {}
        described = RawConfigParser(strict=False, allow_no_value=True)
        try:
            read = [] if self.file is None else described.read(self.file, encoding="utf-8")
        except (NotReadable, UnicodeDecodeError):
            # The error's text would show a line of the file, and perhaps a password in it.
            raise ConfigError(
                f"the service file {self.file} cannot be read: write [name] and key=value lines"
            ) from None
        if not described.has_section(name):
            why = "does not describe it" if read else "does not exist or cannot be read"
            raise ConfigError(
                f"the store's service is {name!r}, but {self.file or 'no file'} {why}: add [{name}] to it, "
                "or name another file by PGSERVICEFILE"
            )
        return {key: value or "" for key, value in described.items(name)} | {"service": name}


SCHEMES = ("postgresql", "postgres")
EXAMPLE = "postgresql://user:password@host/database"
SHOWN = ("service", "host", "port", "dbname", "database", "user", "sslmode", "target_session_attrs")
"""The options of a URL that locate the database and are not secret."""

LIBPQ_ONLY = (
    *("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
    *("tcp_user_timeout", "gssencmode", "fallback_application_name"),
)
"""Options for libpq only: the driver would send them as server settings, and `ManagedConnection` has its own limits."""

POOLER = "pooler"
ANSWERS = {"yes": True, "no": False}
NOT_PASSED = {*LIBPQ_ONLY, "service"}
HOST = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(:[0-9]*)?")
"""One of the hosts in a URL, with or without a port."""


class DatabaseAddress(NamedTuple):
    """Hold the URL for the driver, and `location`, the one for a person to read.

    `pooler` is whether a pooler is in between, or None if that must be found out; `hosts` are the names to look up.
    `others` are the driver's URL with each of the other hosts first, if there are several.
    """

    dsn: str
    location: str
    pooler: bool | None
    hosts: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    async def current(self) -> "DatabaseAddress":
        """Return itself: this address does not change."""
        return self


NO_SERVICES = Services()


def address_of(url: str, services: Services = NO_SERVICES) -> DatabaseAddress:
    """Return the address in `postgresql://user:password@host:port/database?options`; the environment fills gaps.

    `pooler=yes` and `pooler=no` are our own options: whether a pooler such as PgBouncer lends connections for one
    transaction each. If there are several hosts, one that takes writes is used unless the URL says otherwise.
    Raises ConfigError for another scheme, a URL that cannot be read, or a service that is not described.
    Source: PostgreSQL docs, libpq, Connection URIs, Environment Variables and The Connection Service File.
    """
    parts, options = _read(url)
    told = options.pop(POOLER, None)
    if told is not None and told not in ANSWERS:
        raise ConfigError(f"the store's URL says {POOLER}={told}: write {POOLER}=yes or {POOLER}=no, or leave it out")
    options = {**services.options(options.get("service")), **options}
    user, at, hosts = parts.netloc.rpartition("@")
    shown = urlencode({name: value for name, value in options.items() if name in SHOWN}, safe="/")
    where = user.partition(":")[0] + at + hosts + parts.path + ("?" + shown if shown else "")
    listed = unquote(hosts) or options.get("host") or services.host
    if "," in listed:
        options.setdefault("target_session_attrs", "read-write")

    def beginning_with(first: int) -> str:
        lists = {"host": "" if hosts else listed, "port": options.get("port", "")} if first else {}
        turned = {name: _turned(values, first) for name, values in lists.items() if "," in values}
        passed = urlencode({name: value for name, value in (options | turned).items() if name not in NOT_PASSED})
        # Not built by urllib, which drops the slashes before an empty host; a lone slash names no database.
        return f"postgresql://{user}{at}{_turned(hosts, first)}{parts.path.rstrip('/')}" + (
            "?" + passed if passed else ""
        )

    # The ports in the environment belong to the hosts in the order given, which must then stay.
    several = 0 if "," in services.port else (hosts or listed).count(",")
    dsn, *others = map(beginning_with, range(1 + several))
    pooler = None if told is None else ANSWERS[told]
    return DatabaseAddress(dsn, f"postgresql://{where}", pooler, tuple(_names(listed)), tuple(others))


class FollowedAddress:
    """Follow a URL that may change while the program runs, as at a rotation of the database's password.

    Only its user and password may change: this replica's lease and its rooms are in one database. `newest` returns the
    URL as it is now, and may block; it raises ConfigError if there is none. Raises what `address_of` does.
    """

    def __init__(self, url: str, services: Services, newest: Callable[[], str]) -> None:
        self._services = services
        self._newest = newest
        self._url = url
        self._address = address_of(url, services)
        self._told = ""

    @property
    def location(self) -> str:
        return self._address.location

    @property
    def pooler(self) -> bool | None:
        return self._address.pooler

    async def current(self) -> DatabaseAddress:
        """Return the address with the newest user and password, or the last good one if the URL cannot be used."""
        try:
            url = await in_thread(self._newest)
            if _without_credentials(url) != _without_credentials(self._url):
                raise ConfigError("the store's URL names another database or other options now, which needs a restart")
            address = address_of(url, self._services)
        except ConfigError as error:
            if self._told != str(error):
                self._told = str(error)
                logger.warning("%s; new connections use the user and password that were read before", error)
            return self._address
        self._told = ""
        if url != self._url:
            self._url, self._address = url, address
            logger.info("the user or password of the store has changed: new connections use the new ones")
        return self._address


def _without_credentials(url: str) -> tuple[str, str, Mapping[str, str]]:
    """Return the hosts, the path and the options of a URL that neither name a user nor hold a password."""
    parts, options = _read(url)
    rest = {name: value for name, value in options.items() if name not in ("user", "password")}
    return parts.netloc.rpartition("@")[2], parts.path, rest


def _turned(values: str, by: int) -> str:
    """Return a list, separated by commas, rotated by `by` values."""
    listed = values.split(",")
    return ",".join(listed[by:] + listed[:by])


def _names(hosts: str) -> Iterator[str]:
    """Yield the names and IP addresses in a list of hosts, without folders of sockets."""
    for host in hosts.split(","):
        found = HOST.fullmatch(host)
        if found is not None and found[1] and not host.startswith("/"):
            yield found[1].strip("[]")


def _read(url: str) -> tuple[SplitResult, dict[str, str]]:
    """Return a URL's parts and options; raises ConfigError, without quoting the URL, if a password may be misplaced."""
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise _unreadable() from None
    if parts.scheme not in SCHEMES:
        raise ConfigError(f"the store's URL begins with {parts.scheme!r}: write {EXAMPLE}")
    user, at, hosts = parts.netloc.rpartition("@")
    later = parts.path if at else parts.path + parts.query
    misplaced = "@" in user + later or parts.fragment or not url.startswith(f"{parts.scheme}://")
    if misplaced or not all(map(HOST.fullmatch, hosts.split(","))):
        raise _unreadable()
    return parts, options


def _unreadable() -> ConfigError:
    return ConfigError(f"the store's URL cannot be read: write {EXAMPLE}, with reserved characters as %XX")


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
        return limits + PINNED.format(local=str(scope == "LOCAL").lower()) + WRITABLE


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
        return int(await connection.fetchval("SELECT pg_backend_pid()"))
