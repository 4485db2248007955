"""A full disk: deliveries are refused, never acknowledged, and accepted again once there is room."""

import json
import sqlite3
import sys
from pathlib import Path

from tests.support.process import Process
from tests.support.replica import ROOT
from tests.support.stored import stored


def test_a_full_disk_refuses_loses_nothing_and_recovers_unaided(url: str, path: Path) -> None:
    with Process([sys.executable, "-m", "tests.store.sqlite.filling", url], cwd=ROOT) as process:
        assert process.wait() == 0, process.output
        told = json.loads(process.output.splitlines()[-1])
    assert told["refused"] > 10
    assert len(told["acknowledged"]) > 10
    assert told["reason"].startswith("the store takes no writes now")
    assert [found.id for found in stored(url)] == told["acknowledged"]
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
