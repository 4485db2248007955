"""The recipes of docs/logging.md, each in a real host: a delivery's fields are there, and the log delays nothing."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from tests.mounting.test_served_as_it_is import address
from tests.support.markdown import Page
from tests.support.process import Process
from tests.support.whereby import deliver
from whereby_trigger.testing import webhook

PAGE = Page(Path(__file__).parents[2] / "docs" / "logging.md")
PROGRAMS = {block.code.partition("\n")[0].removeprefix("# "): block.code for block in PAGE.blocks("python")}
CONFIG = next(block.code for block in PAGE.blocks("json") if '"version"' in block.code)
SECRET = "the webhook's secret"


def line_of_a_delivery(folder: Path, name: str, *options: str, code: str = "") -> tuple[str, str, str]:
    """Serve a program of the page and deliver a webhook; return its line, its id, and the whole output."""
    (folder / name).write_text(code or PROGRAMS[name])
    command = [sys.executable, "-m", "uvicorn", f"{name.removesuffix('.py')}:app", "--port", "0", *options]
    joined = webhook("room.client.joined", room="/visit-1")
    with Process(command, cwd=folder) as server:
        assert deliver(f"{address(server)}/whereby", joined, SECRET).status == 200
        line = server.line(joined.id)
        server.stop()
        return line, joined.id, server.output


def test_our_own_log_in_a_host(tmp_path: Path) -> None:
    line, id, output = line_of_a_delivery(tmp_path, "own.py")
    fields = json.loads(line)
    assert (fields["webhook_id"], fields["room"], fields["decision"]) == (id, "acme.whereby.com/visit-1", "fired")
    assert output.count(id) == 1
    assert "INFO:     Application startup complete." in output


def test_uvicorns_configuration_has_its_log_and_ours_in_json(tmp_path: Path) -> None:
    (tmp_path / "logging.json").write_text(CONFIG)
    code = PROGRAMS["own.py"].replace('logs.configure(level="INFO", format="json")', "")
    line, id, output = line_of_a_delivery(tmp_path, "plain.py", "--log-config", "logging.json", code=code)
    assert json.loads(line)["webhook_id"] == id
    loggers = [json.loads(line)["logger"] for line in output.splitlines()]
    assert {"uvicorn.error", "uvicorn.access", "whereby_trigger", "whereby_trigger.deliveries"} == set(loggers)
    assert loggers.count("whereby_trigger.deliveries") == 1


def test_a_dictconfig_of_the_hosts_own_can_name_the_fields(tmp_path: Path) -> None:
    line, id, _ = line_of_a_delivery(tmp_path, "dictconfig.py")
    assert f"INFO whereby_trigger.deliveries room=acme.whereby.com/visit-1 webhook={id} room.client.joined" in line


@pytest.mark.skipif(importlib.util.find_spec("structlog") is None, reason="structlog is not installed")
def test_structlog_renders_our_records_as_its_own(tmp_path: Path) -> None:
    line, id, _ = line_of_a_delivery(tmp_path, "with_structlog.py")
    fields = json.loads(line)
    assert (fields["webhook_id"], fields["room"]) == (id, "acme.whereby.com/visit-1")
    assert (fields["logger"], fields["level"]) == ("whereby_trigger.deliveries", "info")
