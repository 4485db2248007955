"""What docs/operating.md says about the store's files, by doing it."""

import os
import stat
import sys
from pathlib import Path

import pytest

from tests.support.markdown import Page
from tests.support.process import Process, whereby_trigger
from tests.support.stored import stored
from tests.support.whereby import SECRET, deliver, request
from whereby_trigger.metrics import METRICS, PREFIX
from whereby_trigger.store import RefusalReason
from whereby_trigger.testing import webhook

OPERATING = Page(Path(__file__).parents[1] / "docs" / "operating.md")
NAME = "whereby-trigger.db"

APP = """
from whereby_trigger import TRIGGER_EVENT_SUCCESS, Trigger

def wanted():
    print("asked", flush=True)
    with open("gate") as gate:
        gate.read()
    return True

trigger = Trigger(webhook_triggers={"room.client.joined": wanted}, predicate_timeout=60)
trigger.on(TRIGGER_EVENT_SUCCESS, lambda success: print("attempt", success.attempt, flush=True))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    os.mkfifo(tmp_path / "gate")
    return tmp_path


def start(folder: Path) -> Process:
    return Process(
        whereby_trigger("start", "app.py", "--port", "0", "--lease-ttl", "3"),
        cwd=folder,
        env={"WHEREBY_WEBHOOK_SECRET": SECRET},
    )


def test_a_backup_of_a_store_at_work_restores_what_was_pending(folder: Path) -> None:
    (block,) = OPERATING.blocks("python")
    (folder / "backup.py").write_text(block.code)
    with start(folder) as server:
        assert deliver(f"http://127.0.0.1:{server.port()}/", webhook("room.client.joined")).status == 200
        server.line("asked")
        with Process([sys.executable, "backup.py"], cwd=folder) as backup:
            assert backup.wait() == 0, backup.output
        server.kill()
    for file in folder.glob(f"{NAME}*"):
        file.unlink()
    (folder / "copy.db").rename(folder / NAME)
    assert [record.state for record in stored(f"sqlite:///{folder}/{NAME}")] == ["pending"]
    with start(folder) as server:
        server.line("asked")
        (folder / "gate").write_text("open")
        server.line("attempt 2")
        assert server.stop() == 0
    assert [record.state for record in stored(f"sqlite:///{folder}/{NAME}")] == ["fired"]


def test_the_files_beside_the_store_are_the_documented_ones_and_their_owners_only(folder: Path) -> None:
    with start(folder) as server:
        assert request("GET", f"http://127.0.0.1:{server.port()}/readyz").status == 200
        files = sorted(path for path in folder.glob(f"{NAME}*"))
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        suffixes = {file.name.removeprefix(NAME) for file in files}
        (replica,) = {suffix for suffix in suffixes if suffix.startswith("-replica-")}
        assert suffixes - {replica} == {"", "-wal", "-shm", "-lock"}
    documented = "".join(row[0] for row in OPERATING.table("File"))
    assert all(suffix in documented for suffix in ("-wal", "-shm", "-lock", "-replica-"))


def test_the_table_of_metrics_has_every_metric_with_its_type_and_labels() -> None:
    rows = [row[:3] for row in OPERATING.table("Metric")]
    assert rows == [
        [f"`{PREFIX}{metric.name}`", metric.type, ", ".join(f"`{label}`" for label in metric.labels)]
        for metric in METRICS
    ]


def test_the_table_of_refusals_has_every_reason_with_its_answer() -> None:
    rows = [row[:2] for row in OPERATING.table("Reason")]
    assert rows == [[str(reason), str(reason.status or "closed")] for reason in RefusalReason]
