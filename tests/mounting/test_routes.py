"""Mounted under a path of a host app, in every usual way, the trigger answers and decides as on its own port."""

from collections.abc import Iterator
from queue import Queue

import pytest
from fastapi import FastAPI

from tests.mounting.hosts import WAYS, Way, fastapi_add_route, fastapi_mount, starlette_nested_mounts
from tests.support.host import Hosted
from tests.support.stored import stored
from tests.support.whereby import deliver, request
from whereby_trigger import Trigger, TriggerSuccess
from whereby_trigger.testing import webhook

WITHIN = 10.0


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def endpoint(request: pytest.FixtureRequest, trigger: Trigger) -> Iterator[str]:
    """Serve a host app, and return the URL that accepts deliveries there."""
    app, path = request.param(trigger)
    with Hosted(app) as host:
        yield host.url + path


def test_a_signed_delivery_is_answered_200_and_decided(endpoint: str, heard: "Queue[TriggerSuccess]", url: str) -> None:
    joined = webhook("room.client.joined", room="/visit-1", display_name="Zoë Ångström 👋")
    assert deliver(endpoint, joined).status == 200
    assert heard.get(timeout=WITHIN).room_url == "https://acme.whereby.com/visit-1"
    assert [record.id for record in stored(url)] == [joined.id]


def test_a_duplicate_is_answered_200_and_calls_no_listener_again(
    endpoint: str, heard: "Queue[TriggerSuccess]", url: str
) -> None:
    first, second = webhook("room.client.joined"), webhook("room.client.joined")
    answers = [deliver(endpoint, sent).status for sent in (first, first, second)]
    calls = [heard.get(timeout=WITHIN).trigger_webhook.id for _ in range(2)]
    assert answers == [200, 200, 200]
    assert calls == [first.id, second.id]
    assert [record.deliveries for record in stored(url)] == [2, 1]


def test_a_forged_or_unsigned_delivery_is_answered_401_and_not_stored(endpoint: str, url: str) -> None:
    forged, unsigned = webhook("room.client.joined"), webhook("room.client.joined")
    assert deliver(endpoint, forged, secret="another secret").status == 401
    assert deliver(endpoint, unsigned, secret=None).status == 401
    assert stored(url) == []


def test_another_method_is_answered_405_and_a_get_200(endpoint: str) -> None:
    assert request("GET", endpoint).status == 200
    assert request("PUT", endpoint, b"{}").status == 405


def test_the_hosts_own_routes_are_left_alone(endpoint: str) -> None:
    host = "/".join(endpoint.split("/")[:3])
    assert request("GET", f"{host}/hello").body == b"hello from the host"
    assert request("POST", f"{host}/other", b"{}").status == 404


def test_a_mount_redirects_a_delivery_that_lacks_the_slash(trigger: Trigger, url: str) -> None:
    app, path = fastapi_mount(trigger)
    with Hosted(app) as host:
        answer = deliver(host.url + path.rstrip("/"), webhook("room.client.joined"))
    assert answer.status == 307
    assert answer.headers["location"].endswith("/whereby/")
    assert stored(url) == []


def test_a_mount_has_the_probes_below_it(trigger: Trigger) -> None:
    app, path = fastapi_mount(trigger)
    with Hosted(app) as host:
        assert request("GET", f"{host.url}{path}livez").status == 200
        assert request("GET", f"{host.url}{path}readyz").status == 200


@pytest.mark.parametrize("way", [fastapi_add_route, fastapi_mount, starlette_nested_mounts])
def test_a_root_path_that_the_server_is_told_of_changes_nothing(
    way: Way, trigger: Trigger, heard: "Queue[TriggerSuccess]"
) -> None:
    app, path = way(trigger)
    with Hosted(app, root_path="/api") as host:
        assert deliver(host.url + path, webhook("room.client.joined")).status == 200
        assert deliver(host.url + path, webhook("room.client.joined"), secret="another").status == 401
    assert heard.get(timeout=WITHIN).attempt == 1


@pytest.mark.filterwarnings("ignore:The `root_path` parameter")
def test_a_root_path_that_fastapi_is_told_of_may_be_stripped_or_not(
    trigger: Trigger, heard: "Queue[TriggerSuccess]"
) -> None:
    app = FastAPI(lifespan=trigger.lifespan, root_path="/api")
    app.add_route("/whereby", trigger.asgi)
    with Hosted(app) as host:
        stripped = deliver(f"{host.url}/whereby", webhook("room.client.joined"))
        whole = deliver(f"{host.url}/api/whereby", webhook("room.client.joined"))
    assert (stripped.status, whole.status) == (200, 200)
    assert heard.qsize() == 2
