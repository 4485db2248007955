"""The kinds of store there are, each with a place of its own that a test may enter, outside every event loop."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from tests.support.place import Place
from tests.support.postgres_place import postgres_place
from tests.support.sqlite_place import sqlite_place

KINDS: Mapping[str, Callable[[Path], AbstractContextManager[Place]]] = {
    "sqlite": sqlite_place,
    "postgresql": postgres_place,
}
