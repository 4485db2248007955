"""Row 10: what every store must do, done through PgBouncer in transaction mode."""

from pathlib import Path

from reliability.result import Result
from reliability.rows import suite
from reliability.stores import Stores
from tests.support.pgbouncer import program

TESTS = ("tests/store", "--ignore=tests/store/sqlite", "--ignore=tests/store/postgres")


async def run(folder: Path, stores: Stores) -> Result:
    """Run the conformance suite of stores through a PgBouncer; raises ToolMissing where there is none."""
    program()
    return await suite.run(folder, stores, tests=TESTS, dose={}, env={"STORE_KINDS": "pgbouncer"})
