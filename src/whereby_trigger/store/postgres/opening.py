"""What a database goes through before it is a store: checks, each finding in a sentence, and numbered migrations."""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from whereby_trigger.errors import StoreError, StoreUnavailable
from whereby_trigger.store.postgres.connection import Connection, one_row, transaction

OLDEST = 140_000
"""PostgreSQL 14, as server_version_num."""

CLOCKS_APART = 10.0
"""Seconds that this machine's clock may differ from the database's without a warning."""

FACTS = """
SELECT current_setting('server_version_num')::integer AS number, current_setting('server_version') AS version,
    current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS synchronous_commit,
    current_setting('full_page_writes') AS full_page_writes, current_setting('server_encoding') AS encoding,
    pg_is_in_recovery() AS standby, current_setting('default_transaction_read_only') AS read_only,
    quote_ident(current_user) AS role, quote_ident(current_database()) AS database,
    extract(epoch FROM clock_timestamp())::float8 AS now,
    has_database_privilege(current_database(), 'CREATE') AS creates,
    to_regnamespace('whereby_trigger') IS NOT NULL AS there,
    CASE WHEN to_regnamespace('whereby_trigger') IS NOT NULL
         THEN has_schema_privilege('whereby_trigger', 'USAGE') END AS uses
"""
DURABILITY = """
SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
    current_setting('synchronous_commit') AS synchronous_commit, quote_ident(current_user) AS role
"""
LACKING = """
SELECT string_agg(privilege, ', ' ORDER BY privilege) || ' on ' || classes.relname AS what
FROM pg_class AS classes JOIN pg_namespace AS spaces ON spaces.oid = classes.relnamespace
JOIN (VALUES ('r', 'SELECT'), ('r', 'INSERT'), ('r', 'UPDATE'), ('r', 'DELETE'), ('S', 'USAGE'))
    AS wanted (kind, privilege) ON wanted.kind = classes.relkind::text
WHERE spaces.nspname = 'whereby_trigger' AND (classes.relname <> 'version' OR privilege = 'SELECT')
AND NOT CASE kind WHEN 'S' THEN has_sequence_privilege(classes.oid, privilege)
                  ELSE has_table_privilege(classes.oid, privilege) END
AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = classes.oid AND deptype = 'i')
GROUP BY classes.relname ORDER BY classes.relname
"""
"""The privileges that a replica needs and the role lacks, but for the internal sequence of an identity column."""


class Remark(NamedTuple):
    """Describe one aspect of a database in words.

    `warns` is True if a person should know, although it works; `problem` is why the database cannot be a store.
    """

    about: str
    words: str
    warns: bool = False
    problem: StoreError | None = None


async def look(connection: Connection, location: str) -> list[Remark]:
    """Return remarks on all aspects of a database."""
    async with transaction(connection):
        sent = time.time()
        facts = await one_row(connection, FACTS)
        received = time.time()
        lacking = await connection.fetch(LACKING) if facts["uses"] else []
    return judge(dict(facts), [row["what"] for row in lacking], sent, received, location)


def judge(
    facts: Mapping[str, Any], lacking: Sequence[str], sent: float, received: float, location: str
) -> list[Remark]:
    """Return remarks on the facts about a database.

    `lacking` are the privileges it lacks. The facts were requested at `sent` and received at `received`, in seconds
    since the epoch by our clock.
    """
    return [
        *_problems("version", _version_problems(facts, location), f"PostgreSQL {facts['version']}"),
        *_problems(
            "durability",
            _durability_problems(facts, location),
            "fsync={fsync}, full_page_writes={full_page_writes}, synchronous_commit={synchronous_commit}".format(
                **facts
            ),
        ),
        *_problems("writes", _writing_problems(facts, location), "it is no standby, and not read-only"),
        *_problems(
            "privileges", _privilege_problems(facts, lacking, location), f"the role {facts['role']} has what is needed"
        ),
        _clocks(facts["now"], sent, received),
    ]


async def check(connection: Connection, location: str) -> list[str]:
    """Check that a database can be a store; return what a person should know although it works.

    Raises StoreError with what must be changed, and StoreUnavailable if the database takes no writes now.
    """
    remarks = await look(connection, location)
    for remark in remarks:
        if remark.problem is not None:
            raise remark.problem
    return [remark.words for remark in remarks if remark.warns]


async def why_unsafe(connection: Connection, location: str) -> str:
    """Check again that acknowledged webhooks would survive a crash; return why they would not, or ""."""
    facts = await one_row(connection, DURABILITY)
    return next((str(problem) for problem in _durability_problems(dict(facts), location)), "")


def _problems(about: str, problems: Iterator[StoreError], words: str) -> list[Remark]:
    return [Remark(about, str(problem), problem=problem) for problem in problems] or [Remark(about, words)]


def _version_problems(facts: Mapping[str, Any], location: str) -> Iterator[StoreError]:
    if facts["number"] < OLDEST:
        yield StoreError(
            f"the store {location} is PostgreSQL {facts['version']}, and 14 or later is needed: "
            "upgrade the server, or name another"
        )
    if facts["encoding"] != "UTF8":
        yield StoreError(
            f"the store {location} has the encoding {facts['encoding']}, which cannot hold every name: "
            "create the database with ENCODING 'UTF8' TEMPLATE template0"
        )


def _durability_problems(facts: Mapping[str, Any], location: str) -> Iterator[StoreError]:
    for setting in ("fsync", "full_page_writes"):
        if facts[setting] == "off":
            yield StoreError(
                f"the store {location} runs with {setting}=off: what is acknowledged would not survive a power loss; "
                f"set {setting}=on in the server's configuration"
            )
    if facts["synchronous_commit"] == "off":
        yield StoreError(
            f"the store {location} runs with synchronous_commit=off: what is acknowledged would not survive a crash; "
            f"ALTER ROLE {facts['role']} SET synchronous_commit = on, and see that no URL option sets it"
        )


def _writing_problems(facts: Mapping[str, Any], location: str) -> Iterator[StoreError]:
    if facts["standby"]:
        yield StoreUnavailable(f"the store {location} is a standby, which takes no writes: name the primary's endpoint")
    elif facts["read_only"] == "on":
        yield StoreUnavailable(
            f"the store {location} is read-only (default_transaction_read_only=on): name an endpoint that takes "
            f"writes, or ALTER ROLE {facts['role']} SET default_transaction_read_only = off"
        )


def _privilege_problems(facts: Mapping[str, Any], lacking: Sequence[str], location: str) -> Iterator[StoreError]:
    role, database = facts["role"], facts["database"]
    if not facts["there"] and not facts["creates"]:
        yield StoreError(
            f"the store {location} has no schema whereby_trigger, and the role {role} may not create it: "
            f"GRANT CREATE ON DATABASE {database} TO {role}, or run "
            "`whereby-trigger db migrate` once as a role that may"
        )
    elif facts["uses"] is False:
        yield StoreError(
            f"the role {role} may not use the schema whereby_trigger of the store {location}: "
            f"GRANT USAGE ON SCHEMA whereby_trigger TO {role}"
        )
    elif lacking:
        yield StoreError(
            f"the role {role} lacks {'; '.join(lacking)} in the store {location}: "
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA whereby_trigger TO {role}; "
            f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA whereby_trigger TO {role}"
        )


def _clocks(now: float, sent: float, received: float) -> Remark:
    apart = max(sent - now, now - received, 0.0)
    if apart <= CLOCKS_APART:
        at_most = max(abs(now - sent), abs(received - now))
        return Remark("clock", f"this machine's and the database's are at most {at_most:.2f} s apart")
    which = "behind" if now > received else "ahead of"
    return Remark(
        "clock",
        f"this machine's clock is {apart:.0f} s {which} the database's: leases go by the database's, but signatures "
        "are judged by this machine's; have both set by NTP",
        warns=True,
    )


LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('whereby_trigger migrates', 0))"
WAIT_FOR_OTHERS = "SET LOCAL lock_timeout = '60s'"
WAIT_FOR_TABLES = "SET LOCAL lock_timeout = '2s'"
# Not to_regclass, which uses the server process's cache: after waiting for the lock it would still say no.
THERE = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS classes
JOIN pg_catalog.pg_namespace AS spaces ON spaces.oid = classes.relnamespace
WHERE spaces.nspname = 'whereby_trigger' AND classes.relname = 'version')
"""
VERSION = "SELECT schema, admits FROM whereby_trigger.version"


@cache
def scripts() -> dict[int, str]:
    """Return all migrations by number; read once, since the process may later lose the permission to read them."""
    folder = resources.files("whereby_trigger.store.postgres") / "migrations"
    files = [file for file in folder.iterdir() if file.name.endswith(".sql")]
    return {int(file.name.partition("_")[0]): file.read_text(encoding="utf-8") for file in sorted(files, key=str)}


SCHEMA = max(scripts())
"""The newest schema this program knows."""


async def check_admitted(connection: Connection, location: str) -> int:
    """Return a database's schema, 0 if it has none; raises StoreError if it admits only newer programs."""
    if not await connection.fetchval(THERE):
        return 0
    schema, admits = await one_row(connection, VERSION)
    if admits > SCHEMA:
        raise StoreError(
            f"the store {location} was migrated by a newer whereby-trigger and admits only programs that know its "
            f"schema {admits}; this one knows {SCHEMA}: upgrade whereby-trigger, or use another database"
        )
    return int(schema)


async def migrate(connection: Connection, location: str) -> list[int]:
    """Apply the migrations that a database lacks, in one transaction; return their numbers.

    Replicas that start at the same time wait for the first, and find nothing left to do.
    """
    if await check_admitted(connection, location) >= SCHEMA:
        return []
    async with transaction(connection):
        await connection.execute(WAIT_FOR_OTHERS)
        await connection.execute(LOCK)
        # Waiting for a whole table makes everyone else wait behind us: not longer than a delivery can.
        await connection.execute(WAIT_FOR_TABLES)
        schema = await check_admitted(connection, location)
        missing = {number: script for number, script in sorted(scripts().items()) if number > schema}
        for number, script in missing.items():
            await connection.execute(script)
            await connection.execute("UPDATE whereby_trigger.version SET schema = $1", number)
    return list(missing)
