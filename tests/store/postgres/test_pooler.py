"""Behind a pooler that nobody has told them of, replicas keep out of each other's way."""

import subprocess
import sys

from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import Server
from tests.support.process import WITHIN, clean_environment


def test_one_process_after_the_other_opens_the_store_through_the_same_server_connections(
    postgres: Server, bouncer: PgBouncer
) -> None:
    # Each looks for a pooler first; what that left in a server connection would be in the way of the next one.
    url = bouncer.through(postgres.create_database())
    for command in (["db", "migrate"], *[["events", "list"]] * 5):
        ended = subprocess.run(
            [sys.executable, "-m", "whereby_trigger", *command, "--store", url],
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=WITHIN,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
