"""What can come instead of an outcome: a value is refused, a row is locked by somebody else, or all else: an outage."""

import ssl

import asyncpg

from whereby_trigger.errors import StoreBusy, StoreError, StoreUnavailable

DATA = ("22", "23")
"""The classes of SQLSTATE that are about the values given: data exceptions and violated constraints.

Source: PostgreSQL docs, Appendix A, PostgreSQL Error Codes.
"""

OF_VALUES = (ValueError, TypeError, LookupError, ArithmeticError)
"""What Python and the driver raise about the values given. The driver's own errors of this kind are ValueErrors."""

READ_ONLY = "25006"
CONTENTION = ("55P03", "40P01", "40001")
"""A lock that was not free in time, a deadlock, a conflict: nothing was changed."""

ADVICE = {
    "28": "check user and password, and that the server's pg_hba.conf lets this machine in",
    "3D": "create the database, or name another",
    "42501": "grant it, or run `whereby-trigger db migrate` as the role that owns the schema whereby_trigger",
    "42704": "leave that option out of the URL",
    "53300": "allow it more connections (max_connections; each replica takes up to 8), or put a pooler before it",
    "55P03": "another transaction has locked what is to be changed: see pg_stat_activity for it, and try again",
    "57P03": "try again when it has started",
}
"""What to do where a database does not let us in, by SQLSTATE or its class."""

REFUSALS = ("28", "3D", "42")
"""The classes about who we are, which database we want and what we may do there: another try changes nothing."""


def is_refusal(error: BaseException) -> bool:
    """Return True if an error is about the values given, so that another try makes no sense.

    Only what is known to be so: whoever is out of threads, files or memory has refused no value.
    """
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "")[:2] in DATA
    if isinstance(error, StoreError):
        return not isinstance(error, StoreUnavailable)
    return isinstance(error, OF_VALUES) and not isinstance(error, asyncpg.ClientConfigurationError)


def is_contention(error: BaseException) -> bool:
    """Return True if somebody else has locked what was to be changed."""
    return isinstance(error, asyncpg.PostgresError) and error.sqlstate in CONTENTION


def leaves_connection_usable(error: BaseException) -> bool:
    """Return True if the same connection may do other work after an error.

    After any other error a new one may fare better: this one may lead to a standby, be read-only for as long as it
    lasts, remember plans that no longer fit, or be a pooler's that lost its server.
    """
    return is_refusal(error) or is_contention(error)


def in_words(error: BaseException) -> StoreError:
    """Return what an error means to somebody who waits for an outcome."""
    if isinstance(error, StoreError):
        return error
    if is_contention(error):
        return StoreBusy(f"another transaction has locked it, see pg_stat_activity: {describe(error)}")
    if not is_refusal(error):
        return StoreUnavailable(f"the database takes no part now: {describe(error)}{_read_only(error)}")
    # The text of such an error may hold a value, and with it a name.
    return StoreError(f"the store refused a value: {type(error).__name__}")


def _read_only(error: BaseException) -> str:
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate == READ_ONLY:
        return "; it is read-only: a standby, or default_transaction_read_only is on"
    return ""


def unusable(location: str, error: Exception) -> StoreError:
    """Say why a database cannot be opened, and what to do."""
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
            "service file, from which comes what the URL leaves out"
        )
    return StoreUnavailable(f"the store {location} cannot be reached: {describe(error)}; {_way_to_it(error)}")


def _refusal(location: str, error: asyncpg.PostgresError) -> StoreError:
    state = error.sqlstate or ""
    advice = ADVICE.get(state) or ADVICE.get(state[:2]) or "see the server's log"
    kind = StoreError if state[:2] in REFUSALS else StoreUnavailable
    return kind(f"the store {location} refuses us: {describe(error)}; {advice}")


def _way_to_it(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) or "SSL" in str(error):
        return "see that sslmode and sslrootcert fit the server"
    if isinstance(error, FileNotFoundError | PermissionError):
        return "see that it runs, and that the socket or certificate that its URL names is there for us"
    return "see that it runs, and that host and port are right"


def describe(error: BaseException) -> str:
    """Say in a line what an outage is, without what a statement was given."""
    text = str(error).partition("\n")[0]
    return text or type(error).__name__
