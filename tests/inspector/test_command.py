"""`inspect`, `start --inspector` and `dev` as a user runs them, and what is not loaded without them."""

import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.support.process import Process, run, whereby_trigger
from tests.support.programs import HUMANS_JOIN, write
from tests.support.whereby import deliver
from whereby_trigger.testing import webhook

TOKEN = "a-token-of-enough-characters"
PAGE = re.compile(r"inspector at (http://127\.0\.0\.1:\d+/)")


def page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310
        return str(answer.read().decode())


def inspector_of(process: Process) -> str:
    found = PAGE.search(process.line("inspector at"))
    assert found is not None
    return found[1]


def test_start_serves_the_inspector_on_a_port_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    command = whereby_trigger("start", "--host", "127.0.0.1", "--port", "0", "--inspector", "127.0.0.1:0")
    with Process(command, cwd=tmp_path) as process:
        webhooks = process.port()
        url = inspector_of(process)
        assert f":{webhooks}/" not in url
        deliver(f"http://127.0.0.1:{webhooks}/", webhook("room.client.joined", id="from-afar").raw)
        process.line("from-afar")
        assert "from-afar" in page(url)
        health = page(f"{url}health")
        assert "0 of 50 used" in health
        assert "not ready" not in health


def test_dev_serves_the_inspector_on_this_machine_and_prints_its_url(tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    with Process(whereby_trigger("dev", "--port", "0"), cwd=tmp_path) as process:
        process.port()
        assert "Nothing has arrived yet" in page(inspector_of(process))


def test_inspect_serves_a_store_without_a_program_and_says_if_there_is_none(tmp_path: Path) -> None:
    missing = run("inspect", "--store", "sqlite:///none.db", "--port", "0", cwd=tmp_path)
    assert missing.returncode == 2
    assert "none.db" in missing.stderr
    assert run("db", "migrate", "--store", "sqlite:///some.db", cwd=tmp_path).returncode == 0
    with Process(whereby_trigger("inspect", "--store", "sqlite:///some.db", "--port", "0"), cwd=tmp_path) as process:
        assert "None: this inspector only looks at the store" in page(f"{inspector_of(process)}health")


def test_inspect_refuses_to_serve_other_machines_without_a_token(tmp_path: Path) -> None:
    refused = run("inspect", "--store", "sqlite:///some.db", "--host", "0.0.0.0", cwd=tmp_path)
    assert refused.returncode == 2
    assert "WHEREBY_TRIGGER_INSPECTOR_TOKEN" in refused.stderr
    short = run("inspect", "--store", "sqlite:///some.db", cwd=tmp_path, env={"WHEREBY_TRIGGER_INSPECTOR_TOKEN": "x"})
    assert "at least 16 characters" in short.stderr


def test_config_never_shows_the_token(tmp_path: Path) -> None:
    for form in ([], ["--json"]):
        shown = run("config", *form, cwd=tmp_path, env={"WHEREBY_TRIGGER_INSPECTOR_TOKEN": TOKEN})
        assert shown.returncode == 0
        assert TOKEN not in shown.stdout
        assert "inspector_token" in shown.stdout


@pytest.mark.parametrize("module", ["jinja2", "starlette.requests", "whereby_trigger.inspector.app"])
def test_the_import_of_the_package_loads_none_of_the_pages(module: str) -> None:
    program = f"import sys, whereby_trigger; whereby_trigger.Trigger(); print({module!r} in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "False"
