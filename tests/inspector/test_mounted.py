"""The inspector in an app of the user's, as examples/inspector_app.py shows it."""

import importlib
from pathlib import Path

import httpx
import pytest

from tests.inspector.conftest import form_token
from tests.support.http import SECRET, signature
from tests.support.until import eventually
from whereby_trigger.testing import webhook

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
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
