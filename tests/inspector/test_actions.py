"""The inspector's actions: replay, ask again, start and stop, each confirmed, logged and possible to switch off."""

import time

import pytest

from tests.inspector.conftest import ROOM, Client, deliver, form_token, run_in
from tests.support.place import Place
from whereby_trigger import RoomClientJoined, Trigger, timeline
from whereby_trigger.store import ActionKind, ActionQuery, Query, RoomQuery, RoomState, State, Store, remove_bodies

pytestmark = pytest.mark.anyio


async def test_a_replay_asks_first_and_makes_the_webhook_pending(
    store: Store, place: Place, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "whereby_trigger.inspector")
    await deliver(store, "one", at=time.time())
    browser = client(Trigger(store=place.url))
    asked = await browser.get("/confirm?action=replay&id=one")
    assert "Replay this webhook?" in asked.text
    assert (await store.find(Query()))[0].state is State.SKIPPED
    answer = await browser.post("/webhook/replay", data={"id": "one", "form_token": form_token(asked.text)})
    assert answer.headers["location"] == "/webhook?id=one&done=replay"
    assert (await store.find(Query()))[0].state is State.PENDING
    assert "inspector: webhook one is replayed" in caplog.messages
    told = (await browser.get(answer.headers["location"])).text
    assert "will be decided again" in told
    assert "by hand, in the inspector: replay of webhook one" in told
    missing = await browser.post("/webhook/replay", data={"id": "none", "form_token": form_token(told)})
    assert missing.status_code == 404
    assert [action.webhook for action in await store.find_actions(ActionQuery())] == ["one"]


async def test_a_stop_is_recorded_as_the_inspectors_and_a_start_asks_for_a_room(
    store: Store, place: Place, client: Client
) -> None:
    await deliver(store, "one", at=time.time(), state=State.FIRED)
    await run_in(store, ROOM, "one", time.time())
    browser = client(Trigger(store=place.url))
    asked = await browser.get("/confirm", params={"action": "stop", "key": ROOM})
    await browser.post("/room/stop", data={"key": ROOM, "form_token": form_token(asked.text)})
    (entry,) = await store.find_rooms(RoomQuery(room=ROOM))
    assert entry.stop == "stopped by inspector"
    other = "acme.whereby.com/another"
    started = await browser.post("/room/start", data={"key": other, "form_token": form_token(asked.text)})
    assert started.headers["location"].endswith("done=start")
    (entry,) = await store.find_rooms(RoomQuery(room=other))
    assert (entry.state, entry.webhook) == (RoomState.WAITING, None)
    again = await browser.post("/room/start", data={"key": other, "form_token": form_token(asked.text)})
    assert again.headers["location"].endswith("done=had")
    wrong = await browser.post("/room/start", data={"key": "evil.example/x", "form_token": form_token(asked.text)})
    assert wrong.status_code == 400
    page = (await browser.get("/room", params={"key": ROOM})).text
    assert "by hand, in the inspector: the assistant is asked to leave" in page
    assert 'class="mark mark-acted"' in page
    told = await timeline.of_room(store, other, now=time.time())
    words = [entry.words for meeting in told.meetings for entry in meeting.entries]
    assert words.count("by hand, in the inspector: an assistant is asked for") == 2
    gone = "acme.whereby.com/empty"
    await browser.post("/room/stop", data={"key": gone, "form_token": form_token(asked.text)})
    assert await store.find_actions(ActionQuery(room=gone)) == []


async def test_a_predicate_is_asked_again_without_effect(store: Store, place: Place, client: Client) -> None:
    await deliver(store, "one", at=time.time(), humans=2)
    trigger = Trigger(store=place.url)
    told: list[str] = []

    @trigger.when("room.client.joined")
    def two(webhook: RoomClientJoined) -> bool:
        return webhook.data.humans == 2

    @trigger.on("room.client.joined")
    def tell(webhook: RoomClientJoined) -> None:
        told.append(webhook.id)

    browser = client(trigger)
    before = await store.find(Query())
    page = (await browser.get("/confirm?action=ask&id=one")).text
    assert "Ask the predicate again?" in page
    assert await store.find_actions(ActionQuery()) == []
    answer = await browser.post("/webhook/ask", data={"id": "one", "form_token": form_token(page)})
    assert "It would fire now: predicate two returned True." in answer.text
    assert await store.find(Query()) == before
    assert await store.find_rooms(RoomQuery()) == []
    assert told == []
    (action,) = await store.find_actions(ActionQuery(webhook="one"))
    assert (action.actor, action.action, action.room) == ("inspector", ActionKind.DRY_RUN, ROOM)
    room = (await browser.get("/room", params={"key": ROOM})).text
    assert "the predicate is asked again about webhook one, without effect" in room


async def test_what_has_lost_its_body_is_neither_asked_nor_replayed_and_the_page_says_why(
    store: Store, place: Place, client: Client
) -> None:
    await deliver(store, "one", at=time.time(), humans=2)
    trigger = Trigger(store=place.url, webhook_triggers={"room.client.joined": lambda webhook: True})
    browser = client(trigger)
    token = form_token((await browser.get("/webhook?id=one")).text)
    # Meanwhile the page is open, with its buttons.
    assert await remove_bodies(store, time.time() + 60) == 1
    asked = await browser.post("/webhook/ask", data={"id": "one", "form_token": token})
    assert "It cannot be asked: what it said of people was removed." in asked.text
    answer = await browser.post("/webhook/replay", data={"id": "one", "form_token": token})
    assert "or what it said of people was removed" in (await browser.get(answer.headers["location"])).text
    assert (await store.find(Query()))[0].state is State.SKIPPED


async def test_an_inspector_without_actions_shows_none_and_does_none(
    store: Store, place: Place, client: Client
) -> None:
    await deliver(store, "one", at=time.time())
    browser = client(Trigger(store=place.url, inspector_actions=False))
    page = (await browser.get("/webhook?id=one")).text
    assert "Replay" not in page
    assert (await browser.get("/confirm?action=replay&id=one")).status_code == 403
    for path in ("/webhook/replay", "/webhook/ask", "/room/stop", "/room/start"):
        fields = {"id": "one", "key": ROOM, "form_token": form_token(page)}
        assert (await browser.post(path, data=fields)).status_code == 403
    assert (await store.find(Query()))[0].state is State.SKIPPED
    assert await store.find_actions(ActionQuery()) == []
