"""What was acknowledged is decided after a crash; a webhook that ends the process fails alone."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from tests.support.doomed import Doomed, successes
from tests.support.stage import Stage, leave_pending
from tests.support.stored import stored
from tests.support.until import until
from tests.support.whereby import deliver
from whereby_trigger import Trigger, Webhook
from whereby_trigger.store import Record, State
from whereby_trigger.testing import webhook

FAILED_AT_LAST = "the process ended while it was in user code, 3 times"


def joined(id: str, room: str = "/visit-1", display_name: str = "Robin") -> Webhook:
    return webhook("room.client.joined", id=id, room=room, display_name=display_name)


def left(id: str, room: str = "/visit-1", display_name: str = "Robin") -> Webhook:
    return webhook("room.client.left", id=id, room=room, display_name=display_name)


def leave(folder: Path, *webhooks: Webhook) -> None:
    asyncio.run(leave_pending(folder, *webhooks))


def records(folder: Path) -> list[Record]:
    return stored(f"sqlite:///{folder}/stage.db")


def is_decided(folder: Path) -> bool:
    return all(record.state is not State.PENDING for record in records(folder))


def run_until_all_is_decided(folder: Path) -> int:
    """Start the program repeatedly; return how often a webhook ended it."""
    ends = 0
    while True:
        with Doomed(folder) as program:
            until(lambda: program.popen.poll() is not None or is_decided(folder))
            if program.popen.poll() is None:
                return ends
        ends += 1
        assert ends < 20, "it does not come to an end"


def fates(folder: Path) -> dict[str, State]:
    return {record.id: record.state for record in records(folder)}


def test_a_webhook_that_ends_the_process_fails_and_what_was_acknowledged_with_it_fires(tmp_path: Path) -> None:
    with Doomed(tmp_path) as program:
        url = f"http://127.0.0.1:{program.port()}/"
        assert [deliver(url, joined(f"before-{number}")).status for number in range(5)] == [200] * 5
        assert deliver(url, joined("poison", display_name="poison")).status == 200
        assert program.wait() < 0
    assert run_until_all_is_decided(tmp_path) == 4
    assert fates(tmp_path) == {f"before-{number}": State.FIRED for number in range(5)} | {"poison": State.FAILED}
    assert records(tmp_path)[-1].reason == FAILED_AT_LAST


@pytest.mark.parametrize("poison", [joined, left], ids=["async", "sync"])
def test_innocent_webhooks_before_and_behind_it_in_its_room_and_in_others_fire(poison, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    innocent = [joined(f"{number:02}", room=f"/visit-{number % 5}") for number in range(30)]
    leave(tmp_path, *innocent[:15], poison("poison", "/visit-1", "poison"), *innocent[15:])
    assert run_until_all_is_decided(tmp_path) == 4
    assert fates(tmp_path) == {sent.id: State.FIRED for sent in innocent} | {"poison": State.FAILED}


def test_of_several_that_end_the_process_each_fails_and_no_other_does(tmp_path: Path) -> None:
    innocent = [joined(f"{number:02}", room=f"/visit-{number % 4}") for number in range(20)]
    poison = [joined(f"poison-{number}", f"/visit-{number}", "poison") for number in range(2)]
    leave(tmp_path, *poison, *innocent)
    run_until_all_is_decided(tmp_path)
    assert fates(tmp_path) == {sent.id: State.FIRED for sent in innocent} | {sent.id: State.FAILED for sent in poison}


def test_a_success_tells_at_which_attempt_it_is_told(tmp_path: Path) -> None:
    with Doomed(tmp_path) as program:
        url = f"http://127.0.0.1:{program.port()}/"
        assert deliver(url, joined("sly", display_name="sly")).status == 200
        assert program.wait() < 0
    assert run_until_all_is_decided(tmp_path) == 1
    assert successes(tmp_path) == [("sly", 1), ("sly", 2), ("sly", 3)]
    (record,) = records(tmp_path)
    assert (record.state, record.attempts) == (State.FIRED, 3)


def test_of_two_processes_on_one_file_each_decides_what_it_received_and_nothing_is_decided_twice(
    tmp_path: Path,
) -> None:
    with Doomed(tmp_path) as first, Doomed(tmp_path) as second:
        urls = [f"http://127.0.0.1:{program.port()}/" for program in (first, second)]
        for number in range(40):
            assert deliver(urls[number % 2], joined(f"{number:02}", room=f"/visit-{number % 3}")).status == 200
            assert deliver(urls[(number + 1) % 2], joined(f"{number:02}", room=f"/visit-{number % 3}")).status == 200
        until(lambda: is_decided(tmp_path))
    assert Counter(successes(tmp_path)) == {(f"{number:02}", 1): 1 for number in range(40)}
    owners = [record.owner for record in records(tmp_path)]
    assert len(set(owners)) == 2
    assert owners == owners[:2] * 20
    assert {record.deliveries for record in records(tmp_path)} == {2}


@pytest.mark.anyio
async def test_what_a_killed_process_left_is_taken_over_by_another_that_runs(tmp_path: Path) -> None:
    heard: list[tuple[str, int]] = []
    trigger = Trigger(webhook_triggers={"room.client.joined": lambda: True})
    trigger.on("trigger_event_success", lambda success: heard.append((success.trigger_webhook.id, success.attempt)))
    slow, behind = joined("slow", display_name="slow"), joined("behind")
    async with Stage(trigger, tmp_path) as stage:
        with Doomed(tmp_path) as program:
            url = f"http://127.0.0.1:{await asyncio.to_thread(program.port)}/"
            for sent in (slow, behind):
                assert (await asyncio.to_thread(deliver, url, sent)).status == 200
            assert [record.state for record in await stage.records()] == [State.PENDING] * 2
            program.kill()
        async with asyncio.timeout(4):
            await stage.decision(behind)
    assert heard == [("slow", 2), ("behind", 2)]
