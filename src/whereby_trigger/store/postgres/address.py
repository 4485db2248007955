"""Where a database is: its URL, the services and hosts that it names, and the address that is followed."""

import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from configparser import Error as NotReadable
from configparser import RawConfigParser
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from whereby_trigger.errors import ConfigError
from whereby_trigger.loggers import own_logger
from whereby_trigger.threads import in_thread

logger = own_logger("whereby_trigger.store")


async def look_up(hosts: Sequence[str]) -> None:
    """Wait until the name of one of these hosts is resolved; return at once if there are none.

    It uses a thread of its own: an event loop waits at its end for look-ups of its own, and warns of abandoned ones.
    Raises OSError if no host is known, and UnicodeError if none can be a name.
    """
    if hosts:
        await in_thread(_resolve_one, hosts)


def _resolve_one(hosts: Sequence[str]) -> None:
    for host in hosts[:-1]:
        with suppress(OSError, UnicodeError):
            socket.getaddrinfo(host, None)
            return
    socket.getaddrinfo(hosts[-1], None)


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
