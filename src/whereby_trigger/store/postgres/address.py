"""Where the database is: the URL as the user wrote it, what of it is ours, and how it is shown to a person."""

from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from whereby_trigger.errors import ConfigError

SCHEMES = ("postgresql", "postgres")
EXAMPLE = "postgresql://user:password@host/database"
SHOWN = ("service", "host", "port", "dbname", "database", "user", "sslmode", "target_session_attrs")
"""The options of a URL that tell where the database is and are no secret."""

POOLER = "pooler"
ANSWERS = {"yes": True, "no": False}


class Address(NamedTuple):
    """Hold the URL for the driver, the one for a person, and whether a pooler is between; None: to be found out."""

    dsn: str
    location: str
    pooler: bool | None


def address_of(url: str) -> Address:
    """Read `postgresql://user:password@host:port/database?options`; the environment has what is left out.

    `pooler=yes` and `pooler=no` are ours: whether a pooler such as PgBouncer lends connections for a transaction only.
    Raises ConfigError for another scheme, or a URL that cannot be read.
    Source: PostgreSQL docs, libpq, Connection URIs and Environment Variables.
    """
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise ConfigError(f"the store's URL cannot be read: write {EXAMPLE}, with reserved characters as %XX") from None
    if parts.scheme not in SCHEMES:
        raise ConfigError(f"the store's URL begins with {parts.scheme!r}: write {EXAMPLE}")
    told = options.pop(POOLER, None)
    if told is not None and told not in ANSWERS:
        raise ConfigError(f"the store's URL says {POOLER}={told}: write {POOLER}=yes or {POOLER}=no, or leave it out")
    user, at, hosts = parts.netloc.rpartition("@")
    shown = urlencode({name: value for name, value in options.items() if name in SHOWN}, safe="/")
    where = user.partition(":")[0] + at + hosts + parts.path + ("?" + shown if shown else "")
    dsn = parts._replace(query=urlencode(options)).geturl()
    # An empty host would be lost with its slashes.
    dsn = dsn if "//" in dsn else dsn.replace(":", "://", 1)
    return Address(dsn, f"postgresql://{where}", None if told is None else ANSWERS[told])
