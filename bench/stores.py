"""The stores that are measured: each is new and empty, and is removed after use."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from bench.cores import on
from tests.support.postgres import Server, database_of

SQLITE, POSTGRES = "sqlite", "postgresql"
BUFFERS = "256MB"
"""PostgreSQL's shared_buffers; all other settings have their defaults, or make no difference here."""

PREFIX = "whereby-trigger-bench-"


class Stores:
    """Create stores; `launch` starts PostgreSQL when its first database is needed."""

    def __init__(self, launch: Callable[[], Server]) -> None:
        self._launch = launch
        self._server: Server | None = None

    @contextmanager
    def new(self, kind: str) -> Iterator[str]:
        """Provide the URL of a new store for a `with` block; raises ServerFailed without a PostgreSQL."""
        if kind == SQLITE:
            with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
                yield f"sqlite:///{folder}/store.db"
            return
        server = self._server = self._server or self._launch()
        url = server.create_database()
        try:
            yield url
        finally:
            server.run(f"DROP DATABASE {database_of(url)} WITH (FORCE)")

    @property
    def server_pids(self) -> list[int]:
        """The processes of PostgreSQL, empty if it does not run."""
        return [] if self._server is None else self._server.pids

    def close(self) -> None:
        """Stop PostgreSQL and remove its files."""
        if self._server is not None:
            self._server.close()
            self._server = None


@contextmanager
def stores(database_core: int) -> Iterator[Stores]:
    """Create stores for a `with` block, with their own PostgreSQL on a core."""
    made = Stores(partial(_launch, database_core))
    try:
        yield made
    finally:
        made.close()


def _launch(core: int) -> Server:
    server = Server(shared_buffers=BUFFERS)
    try:
        with on(core):
            server.start()
    except BaseException:
        server.close()
        raise
    return server
