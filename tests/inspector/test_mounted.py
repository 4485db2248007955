"""The inspector in an app of the user's, as examples/inspector_app.py shows it."""

import importlib
import re
import sys
from pathlib import Path

import httpx
import pytest

from tests.inspector.conftest import TOKEN, form_token
from tests.support.http import SECRET, signature
from tests.support.process import Process
from tests.support.until import eventually
from whereby_trigger.testing import webhook

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
APP = """
from starlette.applications import Starlette
from starlette.routing import Mount
from whereby_trigger import Trigger

trigger = Trigger(webhook_triggers={"room.client.joined": lambda: True})
app = Starlette(routes=[Mount("/inspector", trigger.inspector)], lifespan=trigger.lifespan)
"""
pytestmark = pytest.mark.anyio


async def test_the_example_shows_deliveries_to_those_who_know_the_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    inspector_app = importlib.import_module("inspector_app")
    monkeypatch.setenv("ADMIN_PASSWORD", "correct horse")
    monkeypatch.setenv("WHEREBY_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("WHEREBY_TRIGGER_STORE", f"sqlite:///{tmp_path}/webhooks.db")
    body = webhook("room.client.joined", id="one").raw
    transport = httpx.ASGITransport(inspector_app.app, client=("192.0.2.9", 1))
    async with (
        inspector_app.trigger.lifespan(),
        httpx.AsyncClient(transport=transport, base_url="https://app.example", follow_redirects=True) as client,
    ):
        delivered = await client.post("/whereby", content=body, headers=dict([signature(body)]))
        assert delivered.status_code == 200
        assert (await client.get("/admin/inspector/")).status_code == 401
        assert (await client.post("/admin/inspector/webhook/reveal", data={"id": "one"})).status_code == 401
        admin = httpx.BasicAuth("admin", "correct horse")

        async def is_decided() -> bool:
            listed = (await client.get("/admin/inspector/api/webhooks?state=fired", auth=admin)).json()
            return bool(listed["webhooks"])

        await eventually(is_decided)
        page = await client.get("/admin/inspector/webhook", params={"id": "one"}, auth=admin)
        assert 'action="/admin/inspector/webhook/reveal"' in page.text
        form = {"id": "one", "form_token": form_token(page.text)}
        replayed = await client.post("/admin/inspector/webhook/replay", data=form, auth=admin)
        assert "will be decided again" in replayed.text
        await inspector_app.trigger.inspector.close()


def test_a_page_that_follows_does_not_keep_its_host_app_from_stopping(tmp_path: Path) -> None:
    """Uvicorn waits for every answer to end, and tells no app that it is to stop."""
    (tmp_path / "app.py").write_text(APP)
    env = {"WHEREBY_WEBHOOK_SECRET": SECRET, "WHEREBY_TRIGGER_INSPECTOR_TOKEN": TOKEN}
    with Process([sys.executable, "-m", "uvicorn", "app:app", "--port", "0"], cwd=tmp_path, env=env) as server:
        found = re.search(r"http://[0-9.:]+", server.line("Uvicorn running on"))
        assert found is not None
        headers = {"authorization": f"Bearer {TOKEN}"}
        with httpx.stream("GET", f"{found[0]}/inspector/live", headers=headers) as page:
            lines = page.iter_lines()
            assert next(lines) == "retry: 2000"
            server.stop()
            assert "Application shutdown complete" in server.output
            assert [line for line in lines if line.startswith("data")] == []
