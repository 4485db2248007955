"""What a database is looked at for before webhooks are entrusted to it: each finding in a sentence."""

import time
from typing import Any

from whereby_trigger.errors import StoreError, StoreUnavailable
from whereby_trigger.store.postgres.link import Connection, transaction

OLDEST = 140_000
"""PostgreSQL 14, as the server counts its versions."""

CLOCKS_APART = 10.0
"""Seconds by which this machine's clock may differ from the database's without a word."""

ABOUT = """
SELECT current_setting('server_version_num')::integer AS number, current_setting('server_version') AS version,
    current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS synchronous_commit,
    current_setting('full_page_writes') AS full_page_writes, current_setting('server_encoding') AS encoding,
    pg_is_in_recovery() AS standby, current_setting('default_transaction_read_only') AS read_only,
    current_user AS role, current_database() AS database, extract(epoch FROM clock_timestamp())::float8 AS now,
    has_database_privilege(current_database(), 'CREATE') AS creates,
    to_regnamespace('whereby_trigger') IS NOT NULL AS there,
    CASE WHEN to_regnamespace('whereby_trigger') IS NOT NULL
         THEN has_schema_privilege('whereby_trigger', 'USAGE') END AS uses
"""
LACKING = """
SELECT wanted.privilege, classes.relname AS name
FROM pg_class AS classes JOIN pg_namespace AS spaces ON spaces.oid = classes.relnamespace
JOIN (VALUES ('r', 'SELECT'), ('r', 'INSERT'), ('r', 'UPDATE'), ('r', 'DELETE')) AS wanted (kind, privilege)
    ON wanted.kind = classes.relkind::text
WHERE spaces.nspname = 'whereby_trigger' AND classes.relname <> 'version'
AND NOT has_table_privilege(classes.oid, wanted.privilege)
ORDER BY name, privilege
"""


async def check(connection: Connection, location: str) -> list[str]:
    """Look whether a database can be a store; return what a person should know though it works.

    Raises StoreError with what must be changed, StoreUnavailable where it cannot be written for now.
    """
    async with transaction(connection):
        sent = time.time()
        about = await connection.fetchrow(ABOUT)
        received = time.time()
        _check_durable(about, location)
        _check_writable(about, location)
        if about["there"]:
            lacking = await connection.fetch(LACKING)
            _check_allowed(about, lacking, location)
    return _apart(about["now"], sent, received)


def _check_durable(about: Any, location: str) -> None:
    if about["number"] < OLDEST:
        raise StoreError(f"the store {location} is PostgreSQL {about['version']}: 14 or later is needed")
    if about["encoding"] != "UTF8":
        raise StoreError(f"the store {location} has the encoding {about['encoding']}: create the database with UTF8")
    for setting in ("fsync", "full_page_writes"):
        if about[setting] == "off":
            raise StoreError(
                f"the store {location} runs with {setting}=off: what is acknowledged would not survive a power loss; "
                f"set {setting}=on in the server's configuration"
            )
    if about["synchronous_commit"] == "off":
        raise StoreError(
            f"the store {location} runs with synchronous_commit=off: what is acknowledged would not survive a crash; "
            f"ALTER ROLE {about['role']} SET synchronous_commit = on, and see that no URL option sets it"
        )


def _check_writable(about: Any, location: str) -> None:
    if about["standby"] or about["read_only"] == "on":
        kind = "a standby" if about["standby"] else "read-only (default_transaction_read_only)"
        raise StoreUnavailable(f"the store {location} is {kind}: name the endpoint that takes writes")
    if not about["there"] and not about["creates"]:
        raise StoreError(
            f"the store {location} has no schema whereby_trigger, and the role {about['role']} may not create it: "
            f"GRANT CREATE ON DATABASE {about['database']} TO {about['role']}, or run "
            "`whereby-trigger db migrate` once as a role that may"
        )
    if about["uses"] is False:
        raise StoreError(
            f"the role {about['role']} may not use the schema whereby_trigger of the store {location}: "
            f"GRANT USAGE ON SCHEMA whereby_trigger TO {about['role']}"
        )


def _check_allowed(about: Any, lacking: list[Any], location: str) -> None:
    if lacking:
        missing = ", ".join(f"{row['privilege']} on {row['name']}" for row in lacking)
        raise StoreError(
            f"the role {about['role']} lacks {missing} in the store {location}: "
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA whereby_trigger TO {about['role']}"
        )


def _apart(now: float, sent: float, received: float) -> list[str]:
    apart = max(sent - now, now - received, 0.0)
    if apart <= CLOCKS_APART:
        return []
    which = "behind" if now > received else "ahead of"
    return [
        f"this machine's clock is {apart:.0f} s {which} the database's: leases go by the database's, but signatures "
        "are judged by this machine's; have both set by NTP"
    ]
