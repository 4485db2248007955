"""The setting `spill`: off by default, a file's URL, and only in front of a database that may be away."""

from pathlib import Path

import pytest

from tests.support.process import run
from tests.support.programs import HUMANS_JOIN, write
from tests.support.replica import ROOT
from whereby_trigger import ConfigError, Trigger
from whereby_trigger.config import resolve
from whereby_trigger.store.factory import spill_file_for
from whereby_trigger.store.spill import SPILL_AFTER
from whereby_trigger.testing import webhook

DATABASE = "postgresql://nobody@127.0.0.1/none"


def test_it_is_off_by_default_and_by_its_name() -> None:
    assert resolve({}, {}, {}).settings.spill is None
    environ = {"WHEREBY_TRIGGER_SPILL": "sqlite:///spill.db"}
    assert resolve({}, {}, environ).settings.spill == "sqlite:///spill.db"
    assert resolve({"spill": "off"}, {}, environ).settings.spill is None
    assert spill_file_for(None, DATABASE) is None


def test_the_documented_wait_is_the_real_one() -> None:
    assert f"does not answer within {SPILL_AFTER:g} s" in (ROOT / "docs" / "operating.md").read_text()


def test_a_password_given_as_a_spill_is_not_shown() -> None:
    with pytest.raises(ConfigError, match="file on this machine") as caught:
        resolve({"spill": "postgresql://robin:hunter2@db/spill"}, {}, {})
    assert "hunter2" not in str(caught.value)


def test_relative_and_absolute_files_are_found_as_a_stores_are(tmp_path: Path) -> None:
    relative, absolute = (
        spill_file_for("sqlite:///spill.db", DATABASE),
        spill_file_for(f"sqlite:///{tmp_path}/spill.db", DATABASE),
    )
    assert relative is not None
    assert absolute is not None
    assert (relative.path, absolute.path) == (Path.cwd() / "spill.db", tmp_path / "spill.db")


def test_a_start_with_a_spill_before_a_file_exits_2_and_says_why(tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    ended = run("start", "--port", "0", "--spill", "sqlite:///spill.db", cwd=tmp_path)
    assert ended.returncode == 2
    assert (
        "is for a database that may be unavailable, but store 'sqlite:///whereby-trigger.db' is a file" in ended.stderr
    )
    assert "leave spill out, or set it to off" in ended.stderr


def test_listing_another_store_minds_no_spill(tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    assert run("db", "migrate", cwd=tmp_path).returncode == 0
    listed = run("events", "list", cwd=tmp_path, env={"WHEREBY_TRIGGER_SPILL": "sqlite:///spill.db"})
    assert (listed.returncode, listed.stderr) == (0, "No such webhook is stored.\n")


@pytest.mark.anyio
async def test_a_trigger_with_a_spill_can_be_tested() -> None:
    trigger = Trigger(store=DATABASE, spill="sqlite:///spill.db", webhook_triggers={"room.client.joined": lambda: True})
    async with trigger.testing() as t:
        assert (await t.deliver(webhook("room.client.joined"))).state == "fired"
