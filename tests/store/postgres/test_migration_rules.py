"""Replicas of the version before keep running while a newer one migrates: what a migration therefore must not do."""

import pytest

from scripts.migration_rules import complaints
from whereby_trigger.store.postgres.opening import scripts

ADMITS = "UPDATE whereby_trigger.version SET admits = 2;"


def test_every_migration_after_the_first_leaves_the_version_before_at_work() -> None:
    found = {number: complaints(number, script) for number, script in scripts().items() if number > 1}
    assert not any(found.values()), found


@pytest.mark.parametrize(
    "script",
    [
        "ALTER TABLE whereby_trigger.rooms ADD COLUMN later text;",
        "ALTER TABLE whereby_trigger.rooms ADD COLUMN later integer NOT NULL DEFAULT 0, ADD COLUMN more text;",
        "ALTER TABLE whereby_trigger.rooms ALTER COLUMN pid DROP NOT NULL;",
        "CREATE TABLE whereby_trigger.new (id text NOT NULL PRIMARY KEY);\nCREATE INDEX a ON whereby_trigger.new (id);",
        "CREATE INDEX IF NOT EXISTS rooms_url ON whereby_trigger.rooms (url);",
        "ALTER TABLE whereby_trigger.rooms DROP CONSTRAINT a, ADD CONSTRAINT a CHECK (pid IN (1, 2)) NOT VALID;",
        f"{ADMITS} ALTER TABLE whereby_trigger.rooms DROP COLUMN pid;",
        "-- We DROP nothing and RENAME nothing.\nSELECT 1;",
    ],
)
def test_what_only_adds_may_be_said(script: str) -> None:
    assert complaints(3, script) == []


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("ALTER TABLE whereby_trigger.rooms DROP COLUMN pid;", "takes something away"),
        ("DROP INDEX whereby_trigger.rooms_open;", "takes something away"),
        ("ALTER TABLE whereby_trigger.rooms RENAME COLUMN pid TO process;", "renames something"),
        ("ALTER TABLE whereby_trigger.rooms ALTER COLUMN pid TYPE bigint;", "changes a type"),
        ("ALTER TABLE whereby_trigger.rooms ALTER pid SET NOT NULL;", "forbids NULL"),
        ("ALTER TABLE whereby_trigger.rooms ADD COLUMN later text, ADD CHECK (pid > 0);", "forbids what was allowed"),
        ("ALTER TABLE whereby_trigger.rooms ADD CONSTRAINT one UNIQUE (url);", "forbids what was allowed"),
        ("ALTER TABLE whereby_trigger.rooms ADD CONSTRAINT a CHECK (pid > 0) NOT VALID;", "forbids what was allowed"),
        ("ALTER TABLE whereby_trigger.rooms DROP CONSTRAINT a;", "takes something away"),
        ("ALTER TABLE whereby_trigger.rooms ADD COLUMN later integer NOT NULL;", "has no DEFAULT"),
        ("ALTER TABLE whereby_trigger.rooms ADD a text DEFAULT '', ADD b text NOT NULL;", "has no DEFAULT"),
        ("CREATE INDEX rooms_url ON whereby_trigger.rooms (url);", "without IF NOT EXISTS"),
        ("CREATE INDEX CONCURRENTLY IF NOT EXISTS rooms_url ON whereby_trigger.rooms (url);", "no transaction can"),
        ("UPDATE whereby_trigger.version SET admits = 3; DROP TABLE whereby_trigger.rooms;", "must be unused"),
    ],
)
def test_what_would_disturb_them_is_complained_of(script: str, says: str) -> None:
    (complaint,) = complaints(3, script)
    assert says in complaint
