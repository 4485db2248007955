"""Classify errors: the database refused a value, another transaction has locked a row, or it is an outage."""

import ssl

import asyncpg

from whereby_trigger.errors import StoreBusy, StoreError, StoreUnavailable

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
