"""The pages are valid HTML, by the standard's rules of what may be where."""

import json

import anyio
import pytest

from tests.inspector.conftest import Client
from tests.inspector.page_checks import VALIDATOR, needs_validator
from tests.inspector.test_pages import PAGES, fill
from tests.support.place import Place
from whereby_trigger import Trigger
from whereby_trigger.store import Store

pytestmark = [pytest.mark.anyio, needs_validator]


async def test_each_page_is_valid_html_whatever_is_stored(store: Store, place: Place, client: Client) -> None:
    browser = client(Trigger(store=place.url))
    pages = [{"path": "/ of an empty store", "html": (await browser.get("/")).text}]
    await fill(store)
    pages += [{"path": path, "html": (await browser.get(path)).text} for path in (*PAGES, "/nowhere")]
    login = client(Trigger(store=place.url, inspector_token="a-token-of-enough-characters"))
    pages.append({"path": "/login", "html": (await login.get("/login")).text})
    done = await anyio.run_process(["node", str(VALIDATOR)], input=json.dumps(pages).encode())
    assert done.stdout.decode().splitlines() == []
