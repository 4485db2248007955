"""Open stores, and claim what is in them, as a user bound by file modes: if root runs this, as nobody (65534)."""

import asyncio
import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.process import Process
from whereby_trigger.errors import UsageError
from whereby_trigger.store.factory import store_for

ROOT = Path(__file__).parents[2]
NOBODY = 65534
CANNOT = "no other user can be had here"


def outcomes(*urls: str) -> list[str] | None:
    """Return `opened` or the error's text for each store; None if root cannot become nobody."""
    with Process([sys.executable, "-m", "tests.support.unprivileged", *urls], cwd=ROOT) as process:
        code = process.wait()
        if CANNOT in process.output:
            return None
        assert code == 0, process.output
        found: list[str] = json.loads(process.output.splitlines()[-1])
        return found


def become_nobody() -> bool:
    """Drop root's rights, if we have them; return True if we are without them."""
    try:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
    except OSError:
        return False
    return True


async def attempt(url: str) -> str:
    store = store_for(url)
    try:
        await store.open(lambda: None)
    except UsageError as error:
        return str(error)
    claimed = await store.take_over()
    await store.close()
    return f"opened, {claimed} claimed"


def main(*urls: str) -> None:
    with TemporaryDirectory() as folder:
        # Import now what Python imports late: the interpreter may be where only root can read.
        asyncio.run(attempt(f"sqlite:///{folder}/warm.db"))
        asyncio.run(attempt(f"sqlite:///{folder}/missing/warm.db"))
    if not become_nobody():
        print(CANNOT)
        return
    print(json.dumps([asyncio.run(attempt(url)) for url in urls]))


if __name__ == "__main__":
    main(*sys.argv[1:])
