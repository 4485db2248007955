"""`inspect`, `start --inspector` and `dev` as a user runs them, and what is not loaded without them."""

import asyncio
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import FrameType

import pytest

from tests.support.process import Process, run, whereby_trigger
from tests.support.programs import HUMANS_JOIN, write
from tests.support.whereby import deliver
from whereby_trigger import TRIGGER_EVENT_SUCCESS, Trigger
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


def test_the_import_of_the_package_loads_none_of_the_inspector() -> None:
    program = "import sys, whereby_trigger; whereby_trigger.Trigger(); print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    inspectors = [name for name in loaded if name.startswith("whereby_trigger.inspector")]
    assert inspectors + [name for name in ("jinja2", "starlette.requests") if name in loaded] == []


WITHOUT = """
import sys

sys.modules["whereby_trigger.inspector"] = None  # Its import raises ImportError.
"""


def test_a_trigger_whose_inspector_is_off_serves_and_stops_without_its_code(tmp_path: Path) -> None:
    write(tmp_path, WITHOUT + HUMANS_JOIN)
    with Process(whereby_trigger("start", "--host", "127.0.0.1", "--port", "0"), cwd=tmp_path) as process:
        url = f"http://127.0.0.1:{process.port()}/"
        deliver(url, webhook("room.client.joined", id="one").raw)
        process.line("one")
        process.popen.send_signal(signal.SIGTERM)
        process.line("stopped")
        assert process.popen.wait(20) == 0
    refused = run("start", "--host", "127.0.0.1", "--port", "0", "--inspector", "127.0.0.1:0", cwd=tmp_path)
    assert refused.returncode != 0
    assert "whereby_trigger.inspector" in refused.stderr


@pytest.mark.anyio
async def test_an_inspector_that_nobody_has_open_runs_no_code_for_a_delivery(tmp_path: Path) -> None:
    decided = asyncio.Event()
    trigger = Trigger(store=f"sqlite:///{tmp_path}/a.db", port=0, host="127.0.0.1", inspector="127.0.0.1:0")
    trigger.when("room.client.joined")(lambda webhook: True)
    trigger.on(TRIGGER_EVENT_SUCCESS)(lambda success: decided.set())
    ran: list[str] = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            ran.append(frame.f_code.co_filename)

    async with trigger:
        await asyncio.to_thread(deliver, f"http://127.0.0.1:{trigger.port}/", webhook("room.client.joined").raw)
        await decided.wait()
        decided.clear()
        sys.setprofile(note)
        try:
            await asyncio.to_thread(deliver, f"http://127.0.0.1:{trigger.port}/", webhook("room.client.joined").raw)
            await decided.wait()
        finally:
            sys.setprofile(None)
    assert [file for file in ran if "/whereby_trigger/receive/" in file]
    assert [file for file in ran if "/whereby_trigger/inspector/" in file] == []
