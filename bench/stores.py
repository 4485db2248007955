"""The stores that are measured: a new, empty one for each round."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.postgres import Server

SQLITE, POSTGRES = "sqlite", "postgresql"
BUFFERS = "256MB"
"""PostgreSQL's shared_buffers; all its other settings are its defaults, or make no difference here."""


class Stores:
    """Make stores; the server of PostgreSQL is started once, when the first of its databases is wanted."""

    def __init__(self, database_core: int | None = None) -> None:
        self._core = database_core
        self._server: Server | None = None

    def new(self, kind: str, folder: Path) -> str:
        """Give the URL of a new store; raises ServerFailed where PostgreSQL cannot be had."""
        if kind == SQLITE:
            return f"sqlite:///{folder / 'store.db'}"
        if self._server is None:
            self._server = Server(shared_buffers=BUFFERS)
            with _on(self._core):
                self._server.start()
        return self._server.create_database()

    @property
    def server_pids(self) -> list[int]:
        """The processes of PostgreSQL, none where it does not run."""
        return [] if self._server is None else self._server.pids

    def close(self) -> None:
        """End PostgreSQL and remove what it wrote."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def __enter__(self) -> "Stores":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@contextmanager
def _on(core: int | None) -> Iterator[None]:
    """Have this thread, and what it starts, run on a core for as long as a `with` block."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
