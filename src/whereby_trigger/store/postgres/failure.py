"""What PostgreSQL and the way to it can answer instead of an outcome: an outage, or a refusal of what was given."""

import asyncpg

from whereby_trigger.errors import StoreError, StoreUnavailable

DATA = ("22", "23")
"""The classes of SQLSTATE that are about the values given: data exceptions and violated constraints.

Source: PostgreSQL docs, Appendix A, PostgreSQL Error Codes.
"""

DENIED = ("28", "3D", "42")
"""The classes about who we are, which database we want and what we may do there."""


def is_outage(error: BaseException) -> bool:
    """Tell whether an error is the database's or the network's, so that another try makes sense."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "")[:2] not in DATA
    return isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError | EOFError)


def in_words(error: BaseException) -> StoreError:
    """Say what an error means to somebody who waits for an outcome."""
    if isinstance(error, StoreError):
        return error
    if is_outage(error):
        return StoreUnavailable(f"the database takes no part now: {describe(error)}")
    # The text of such an error may hold a value, and with it a name.
    return StoreError(f"the store refused a value: {type(error).__name__}")


def unusable(location: str, error: Exception) -> StoreError:
    """Say why a database cannot be opened, and what to do."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, asyncpg.ClientConfigurationError):
        return StoreError(f"the store {location} cannot be found by its URL: {describe(error)}")
    if isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "")[:2] in DENIED:
        return StoreError(f"the store {location} refuses us: {describe(error)}; check user, password and database")
    return StoreUnavailable(
        f"the store {location} cannot be reached: {describe(error)}; see that it runs and that host and port are right"
    )


def describe(error: BaseException) -> str:
    """Say in a line what an outage is, without what a statement was given."""
    text = str(error).partition("\n")[0]
    return text or type(error).__name__
