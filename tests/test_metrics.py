"""What `trigger.metrics` shows, scraped as Prometheus does it."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from scripts.metrics_cost import microseconds
from tests.support.host import Hosted
from tests.support.http import SECRET, ask, delivery, request
from tests.support.outage import AwayStore
from tests.support.process import Process, whereby_trigger
from tests.support.programs import HUMANS_JOIN, write
from tests.support.scraping import Scrape, answer_of, scrape
from tests.support.stores import KINDS
from tests.support.tools import skip_without
from tests.support.until import eventually
from tests.support.whereby import deliver
from tests.support.whereby import request as ask_url
from whereby_trigger import AssistantRefused, ConfigError, Session, Trigger
from whereby_trigger.assist.runners import RunEnd
from whereby_trigger.errors import AddressError
from whereby_trigger.metrics import (
    METRICS,
    PREFIX,
    RUN_RESULTS,
    Counts,
    Histogram,
    MetricsApp,
    Outcome,
    Readings,
    ReplicaReadings,
)
from whereby_trigger.receive import bind
from whereby_trigger.store import UNDECIDED, RefusalReason, State
from whereby_trigger.testing import webhook

JOINED = webhook("room.client.joined", room="/visit-1", id="a1", displayName="Robin Canary").raw
SIGNED = {"WHEREBY_WEBHOOK_SECRET": SECRET}


def trigger_on(url: str, **settings: Any) -> Trigger:
    return Trigger(
        webhook_triggers={"room.client.joined": lambda: True},
        port=0,
        host="127.0.0.1",
        store=url,
        secret=SECRET,
        **settings,
    )


def trigger_in(folder: Path, **settings: Any) -> Trigger:
    return trigger_on(f"sqlite:///{folder}/webhooks.db", **settings)


@pytest.fixture(params=list(KINDS))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with KINDS[request.param](tmp_path) as place:
        yield place.url


@pytest.mark.anyio
async def test_each_delivery_and_decision_is_counted_on_every_store(url: str) -> None:
    trigger = trigger_on(url)
    async with trigger:
        for data in (
            *(
                delivery(JOINED),
                delivery(JOINED),
                delivery(b"no JSON"),
                delivery(webhook("recording.finished").raw),
            ),
            *(delivery(JOINED, secret="another"), delivery(JOINED, path="/x"), request("PUT", "/")),
        ):
            assert await ask(trigger.port, data) is not None

        async def decided() -> Scrape | None:
            seen = await scrape(trigger.metrics)
            return seen if seen.value("decision_seconds_count") == 2 and not seen.value("pending") else None

        seen = await eventually(decided)
        assert seen.above_zero("deliveries_total") == {
            ("stored", "200"): 2,
            ("duplicate", "200"): 1,
            ("quarantined", "200"): 1,
            ("wrong signature", "401"): 1,
            ("wrong path", "404"): 1,
            ("wrong method", "405"): 1,
        }
        assert seen.above_zero("decisions_total") == {("fired",): 1, ("unhandled",): 1, ("quarantined",): 1}
        assert seen.value("answer_seconds_count") == seen.value("answer_seconds_bucket", le="+Inf") == 4
        assert 0 < seen.value("answer_seconds_sum") < 60
        assert (seen.value("up"), seen.value("store_up"), seen.value("oldest_pending_seconds")) == (1, 1, 0)
        assert 0 < seen.value("lease_seconds") <= 30


@pytest.mark.anyio
async def test_a_hold_is_counted_apart_and_its_decision_once_without_its_time(url: str) -> None:
    trigger = Trigger(port=0, host="127.0.0.1", store=url, secret=SECRET)
    agrees = [True]
    trigger.when("room.client.joined", hold=300)(lambda: agrees[0])
    async with trigger:

        async def scraped_with(**values: float) -> Scrape:
            async def settled() -> Scrape | None:
                seen = await scrape(trigger.metrics)
                return seen if all(seen.value(name) == value for name, value in values.items()) else None

            seen: Scrape = await eventually(settled)
            return seen

        assert await ask(trigger.port, delivery(webhook("room.client.joined", numClients=1).raw)) is not None
        seen = await scraped_with(holds_total=1, held=1, pending=0)
        assert seen.above_zero("decisions_total") == {}
        assert seen.value("decision_seconds_count") == 1
        agrees[0] = False
        assert await ask(trigger.port, delivery(webhook("room.client.left", numClients=0).raw)) is not None
        seen = await scraped_with(holds_total=1, held=0, pending=0, decision_seconds_count=2)
        assert seen.above_zero("decisions_total") == {("skipped",): 1, ("unhandled",): 1}


@pytest.mark.anyio
async def test_runs_slots_and_rooms_are_shown(tmp_path: Path) -> None:
    trigger = trigger_in(tmp_path, max_rooms=2)
    leave = asyncio.Event()

    @trigger.assistant
    async def assistant(session: Session) -> None:
        if session.room_name == "/refused":
            raise AssistantRefused("room_locked", retry=False)
        await leave.wait()

    async with trigger:
        for room in ("/refused", "/stays", "/stays-2", "/waits"):
            assert await ask(trigger.port, delivery(webhook("room.client.joined", room=room).raw)) is not None

        async def settled() -> Scrape | None:
            seen = await scrape(trigger.metrics)
            live = seen.value("rooms", state="live") == 2 and seen.value("rooms", state="waiting") == 1
            return seen if live else None

        seen = await eventually(settled)
        assert seen.above_zero("runs_total") == {("refused", "failed"): 1}
        assert (seen.value("slots", use="used"), seen.value("slots", use="free")) == (2, 0)
        leave.set()

        async def left() -> bool:
            return (await scrape(trigger.metrics)).above_zero("runs_total").get(("returned", "ended")) == 3

        await eventually(left)


@pytest.mark.anyio
async def test_what_comes_makes_no_new_series_and_shows_no_room_id_or_name(tmp_path: Path) -> None:
    trigger = trigger_in(tmp_path)
    async with trigger:
        before = await scrape(trigger.metrics)
        for number in range(20):
            sent = webhook("room.client.joined", room=f"/canary-{number}", id=f"canary-{number}", displayName="Canary")
            await ask(trigger.port, delivery(sent.raw))
            await ask(trigger.port, delivery(sent.raw, path=f"/canary-{number}"))
            await ask(trigger.port, delivery(JOINED.replace(b"room.client.joined", b"canary.%d" % number)))
        after = await scrape(trigger.metrics)
    assert after.value("deliveries_total", status="404", reason="wrong path") == 20
    assert after.series == before.series
    assert "canary" not in after.text.lower()


@pytest.mark.anyio
async def test_every_metric_is_exposed_with_its_help_by_the_conventions_for_names(tmp_path: Path) -> None:
    trigger = trigger_in(tmp_path)
    async with trigger:
        seen = await scrape(trigger.metrics)
    families = {family.name: family for family in seen.families}
    for metric in METRICS:
        family = families[(PREFIX + metric.name).removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.type, metric.help)
        assert metric.name.endswith("_total") == (metric.type == "counter")
        assert metric.type != "histogram" or metric.name.endswith("_seconds")
    assert len(families) == len(METRICS)


@pytest.mark.anyio
async def test_promtool_finds_nothing_wrong_with_a_scrape(tmp_path: Path) -> None:
    skip_without("promtool")
    trigger = trigger_in(tmp_path)
    async with trigger:
        seen = await scrape(trigger.metrics)
    checked = await asyncio.to_thread(
        subprocess.run, ["promtool", "check", "metrics"], input=seen.text, capture_output=True, text=True
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.anyio
async def test_a_scraper_gets_the_format_that_it_accepts(tmp_path: Path) -> None:
    app = trigger_in(tmp_path).metrics
    plain = await answer_of(app)
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    open_metrics = await answer_of(app, [(b"accept", b"application/openmetrics-text; version=1.0.0")])
    assert open_metrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert open_metrics.body.endswith(b"# EOF\n")
    head = await answer_of(app, method="HEAD")
    assert (head.status, head.body) == (200, b"")
    posted = await answer_of(app, method="POST")
    assert (posted.status, posted.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.anyio
@pytest.mark.parametrize("version", [b"", b"a.b", b"1.x", b"1.0.0;escaping", b"\xb2.0"])
async def test_whatever_a_client_says_that_it_accepts_a_scrape_is_answered(tmp_path: Path, version: bytes) -> None:
    for type in (b"application/openmetrics-text", b"text/plain"):
        scraped = await answer_of(trigger_in(tmp_path).metrics, [(b"accept", type + b"; version=" + version)])
        assert (scraped.status, b"whereby_trigger_up 0.0" in scraped.body) == (200, True)


@pytest.mark.anyio
async def test_a_trigger_that_does_not_run_is_down_and_its_counts_go_on_when_it_runs_again(tmp_path: Path) -> None:
    trigger = trigger_in(tmp_path)
    idle = await scrape(trigger.metrics)
    assert (idle.value("up"), idle.value("store_up"), idle.has("pending")) == (0, 0, False)
    for round in (1, 2):
        async with trigger:
            await ask(trigger.port, delivery(JOINED, secret="another"))
        seen = await scrape(trigger.metrics)
        assert seen.value("deliveries_total", status="401", reason="wrong signature") == round
        assert seen.value("up") == 0


@pytest.mark.anyio
async def test_two_triggers_in_one_process_count_apart(tmp_path: Path) -> None:
    first, second = (trigger_on(f"sqlite:///{tmp_path}/{name}.db") for name in ("first", "second"))
    async with first, second:
        await ask(first.port, delivery(JOINED))
        assert (await scrape(first.metrics)).value("deliveries_total", status="200", reason="stored") == 1
        assert (await scrape(second.metrics)).value("deliveries_total", status="200", reason="stored") == 0


@pytest.mark.anyio
async def test_a_scrape_answers_though_the_store_does_not_and_asks_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.metrics.READ_WITHIN", 0.1)
    store = AwayStore(f"sqlite:///{tmp_path}/webhooks.db")
    await store.open(lambda: None)
    asked = 0
    workload = store.workload

    def count() -> Any:
        nonlocal asked
        asked += 1
        return workload()

    monkeypatch.setattr(store, "workload", count)
    reading = ReplicaReadings(store, asyncio.get_running_loop(), lambda: Readings(spilled=3))
    app = MetricsApp(Counts(), lambda: reading)
    store.fall_silent()
    for seen in await asyncio.gather(*(scrape(app) for _ in range(5)), scrape(app)):
        assert (seen.value("up"), seen.value("store_up"), seen.value("spilled")) == (1, 0, 3)
        assert not seen.has("pending")
    assert asked == 1
    store.come_back()

    async def up() -> bool:
        return (await scrape(app)).value("store_up") == 1

    await eventually(up)
    store.go_down()
    assert (await scrape(app)).value("store_up") == 0
    store.come_back()
    await store.close()


@pytest.mark.anyio
async def test_a_store_that_fails_is_counted(tmp_path: Path) -> None:
    store = AwayStore(f"sqlite:///{tmp_path}/webhooks.db")
    await store.open(lambda: None)
    app = MetricsApp(Counts(), lambda: ReplicaReadings(store, asyncio.get_running_loop(), Readings))
    (tmp_path / "webhooks.db").rename(tmp_path / "elsewhere.db")
    with pytest.raises(Exception, match="takes no writes now"):
        await store.ping(1.0)
    (tmp_path / "elsewhere.db").rename(tmp_path / "webhooks.db")
    assert (await scrape(app)).above_zero("store_errors_total") == {("unavailable",): 1}
    await store.close()


def test_a_host_app_serves_the_metrics_from_its_own_event_loop(tmp_path: Path) -> None:
    trigger = trigger_in(tmp_path)
    app = FastAPI(lifespan=trigger.lifespan)
    app.add_route("/hook", trigger.asgi)
    app.add_route("/metrics", trigger.metrics)
    app.mount("/also", trigger.metrics)
    other = FastAPI()
    other.add_route("/metrics", trigger.metrics)
    with Hosted(app) as host, Hosted(other) as elsewhere:
        assert deliver(f"{host.url}/hook", JOINED).status == 200
        for url in (f"{host.url}/metrics", f"{host.url}/also/", f"{elsewhere.url}/metrics"):
            seen = Scrape(ask_url("GET", url).body.decode())
            assert seen.value("deliveries_total", status="200", reason="stored") == 1
            assert seen.value("store_up") == 1


def test_a_mounted_trigger_without_its_lifespan_counts_what_it_refuses(tmp_path: Path) -> None:
    trigger = trigger_in(tmp_path)
    app = FastAPI()
    app.add_route("/hook", trigger.asgi)
    app.add_route("/metrics", trigger.metrics)
    with Hosted(app) as host:
        assert deliver(f"{host.url}/hook", JOINED).status == 503
        seen = Scrape(ask_url("GET", f"{host.url}/metrics").body.decode())
    assert seen.above_zero("deliveries_total") == {("not running", "503"): 1}


def test_start_serves_metrics_on_a_port_of_their_own_and_not_on_that_of_the_webhooks(tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    options = ("start", "--port", "0", "--host", "127.0.0.1", "--metrics", "127.0.0.1:0")
    with Process(whereby_trigger(*options), cwd=tmp_path, env=SIGNED) as process:
        url = process.line("metrics at http://").partition("metrics at ")[2].rstrip("}\n").rstrip('"')
        webhooks = f"http://127.0.0.1:{process.port()}"
        assert deliver(webhooks, JOINED).status == 200
        seen = Scrape(ask_url("GET", url).body.decode())
        assert seen.value("deliveries_total", status="200", reason="stored") == 1
        assert url.endswith("/metrics")
        assert ask_url("GET", url.removesuffix("metrics")).status == 404
        assert ask_url("POST", url, JOINED).status == 405
        assert ask_url("GET", f"{webhooks}/metrics").status == 404
        assert process.stop() == 0


@pytest.mark.anyio
async def test_a_metrics_port_in_use_fails_the_start_and_the_next_one_succeeds(tmp_path: Path) -> None:
    with bind("127.0.0.1", 0) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        trigger = trigger_in(tmp_path, metrics=address)
        with pytest.raises(AddressError, match=r"^metrics: port \d+ is in use on 127\.0\.0\.1.*a port of its own"):
            await trigger.__aenter__()
    async with trigger:
        answer = await ask(int(address.rpartition(":")[2]), request("GET", "/metrics"))
        assert answer is not None
        assert Scrape(answer.body.decode()).value("up") == 1


@pytest.mark.parametrize("value", ["9100", ":9100", "host:", "host:70000", "http://host:9100", "::1:9100", "a b:1"])
def test_a_metrics_address_that_is_none_is_refused_with_an_example(value: str) -> None:
    with pytest.raises(ConfigError, match=r"as HOST:PORT, e\.g\. 127\.0\.0\.1:9100"):
        Trigger(metrics=value)


def test_a_metrics_address_may_be_ipv6_or_off() -> None:
    assert Trigger(metrics="[::1]:9100").resolve().settings.metrics_address == ("::1", 9100)
    assert Trigger(metrics="off").resolve().settings.metrics_address is None


def test_a_duration_is_in_the_first_bucket_that_holds_it_and_a_negative_one_shrinks_no_sum() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.2, 1.0, 5.0, -3.0):
        histogram.observe(seconds)
    assert histogram.counts == [3, 2, 1]
    assert histogram.sum == pytest.approx(6.35)


def test_all_counts_are_there_from_the_start() -> None:
    """Otherwise the first refusal of a kind is no increase to Prometheus."""
    counts = Counts()
    assert set(counts.refusals) == set(RefusalReason)
    assert set(counts.outcomes) == set(Outcome)
    assert set(counts.decisions) == set(State) - UNDECIDED
    assert set(RUN_RESULTS) == {str(end) for end in RunEnd}


def test_counting_a_webhook_takes_a_few_microseconds_at_most() -> None:
    """It is about 1 µs; the bound leaves room for a busy machine, and none for the client of Prometheus itself."""
    assert any(microseconds(rounds=1) < 6 for _ in range(50))
