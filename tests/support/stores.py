"""The kinds of store, each with a place that a test may enter, outside every event loop."""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from tests.support.pgbouncer import pgbouncer_place
from tests.support.place import Place
from tests.support.postgres_place import postgres_place
from tests.support.sqlite_place import sqlite_place

ALL: Mapping[str, Callable[[Path], AbstractContextManager[Place]]] = {
    "sqlite": sqlite_place,
    "postgresql": postgres_place,
    "pgbouncer": pgbouncer_place,
}
KINDS = {kind: ALL[kind] for kind in os.environ.get("STORE_KINDS", "sqlite,postgresql").split(",")}
"""The kinds that tests run on; PgBouncer, which not everybody has, only if STORE_KINDS names it."""
