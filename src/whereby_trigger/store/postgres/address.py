"""Where the database is: the URL as the user wrote it, what of it is ours, and how it is shown to a person."""

import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from whereby_trigger.errors import ConfigError
from whereby_trigger.store.postgres.services import Services

SCHEMES = ("postgresql", "postgres")
EXAMPLE = "postgresql://user:password@host/database"
SHOWN = ("service", "host", "port", "dbname", "database", "user", "sslmode", "target_session_attrs")
"""The options of a URL that tell where the database is and are no secret."""

LIBPQ_ONLY = (
    *("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
    *("tcp_user_timeout", "gssencmode", "fallback_application_name"),
)
"""How libpq is to connect; the driver would take them for settings of the server, and link.py has its own ways."""

POOLER = "pooler"
ANSWERS = {"yes": True, "no": False}
NOT_PASSED = {*LIBPQ_ONLY, "service"}
HOST = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(:[0-9]*)?")
"""One of the hosts in a URL, with a port or without."""


class Address(NamedTuple):
    """Hold the URL for the driver, and the one for a person.

    `pooler` tells whether a pooler is between, None: to be found out; `hosts` are the names to look up, if any.
    """

    dsn: str
    location: str
    pooler: bool | None
    hosts: tuple[str, ...] = ()


NO_SERVICES = Services()


def address_of(url: str, services: Services = NO_SERVICES) -> Address:
    """Read `postgresql://user:password@host:port/database?options`; the environment has what is left out.

    `pooler=yes` and `pooler=no` are ours: whether a pooler such as PgBouncer lends connections for a transaction only.
    Of several hosts, one that takes writes is meant where the URL does not say otherwise.
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
    if "," in (unquote(hosts) or options.get("host") or services.host):
        options.setdefault("target_session_attrs", "read-write")
    passed = urlencode({name: value for name, value in options.items() if name not in NOT_PASSED})
    # Not put together by urllib, which loses the slashes before an empty host; a lone slash names no database.
    dsn = f"postgresql://{parts.netloc}{parts.path.rstrip('/')}" + ("?" + passed if passed else "")
    names = tuple(_names(unquote(hosts) or options.get("host") or services.host))
    return Address(dsn, f"postgresql://{where}", None if told is None else ANSWERS[told], names)


def _names(hosts: str) -> Iterator[str]:
    """Take the names, or numbers, out of a list of hosts; a folder with a socket in it is none."""
    for host in hosts.split(","):
        found = HOST.fullmatch(host)
        if found is not None and found[1] and not host.startswith("/"):
            yield found[1].strip("[]")


def _read(url: str) -> tuple[SplitResult, dict[str, str]]:
    """Take a URL apart; one in which a password may have got elsewhere is refused, and not repeated."""
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
