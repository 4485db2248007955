"""Each example of the reference has a twin, which does what the original intends, without its mistakes."""

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.examples.assistants import Assistants
from tests.examples.conftest import EXAMPLES, Run, Start
from tests.support.process import whereby_trigger
from tests.support.stored import stored
from tests.support.until import until
from tests.support.whereby import deliver
from whereby_trigger import RoomClientJoined
from whereby_trigger.testing import webhook

ONE = "https://acme.whereby.com/one"
TWO = "https://acme.whereby.com/two"
MANY_ROOMS = ["quick_start.py", "sdk_readme.py"]
ALL_WITH_ASSISTANT = ["quick_start_steps.py", *MANY_ROOMS]


def joined(room: str = "/one", role: str = "visitor") -> RoomClientJoined:
    return webhook("room.client.joined", room=room, role_name=role)


def states(store: str) -> list[str]:
    """Wait until everything stored is decided, and return the states, oldest first."""
    until(lambda: "pending" not in [record.state for record in stored(store)])
    return [str(record.state) for record in stored(store)]


def test_the_references_example_says_for_which_room_it_fired_and_once_for_a_duplicate(start: Start, store: str) -> None:
    process, url = start("trigger_reference.py")
    first, second = joined("/one"), joined("/two")
    assert [deliver(url, sent).status for sent in (first, first, second)] == [200, 200, 200]
    assert process.line("Fired for") == f"Fired for {ONE}\n"
    assert process.line("Fired for") == f"Fired for {TWO}\n"
    assert states(store) == ["fired", "fired"]


def test_the_references_example_fires_for_a_bots_join_too_as_its_docstring_admits(start: Start) -> None:
    process, url = start("trigger_reference.py")
    assert deliver(url, joined(role="assistant")).status == 200
    assert process.line("Fired for") == f"Fired for {ONE}\n"


@pytest.mark.parametrize("example", ALL_WITH_ASSISTANT)
def test_four_joins_at_once_bring_one_assistant(example: str, start: Start, assistants: Assistants, store: str) -> None:
    _, url = start(example)
    with ThreadPoolExecutor(4) as senders:
        answers = list(senders.map(lambda sent: deliver(url, sent).status, [joined() for _ in range(4)]))
    assert answers == [200] * 4
    assert assistants.next().room_url == ONE
    assert sorted(states(store)) == ["fired", "skipped", "skipped", "skipped"]


@pytest.mark.parametrize("example", ALL_WITH_ASSISTANT)
def test_the_assistants_own_join_and_a_duplicate_bring_no_other(
    example: str, start: Start, assistants: Assistants, store: str
) -> None:
    process, url = start(example)
    first, own = joined(), joined(role="assistant")
    assert deliver(url, first).status == 200
    assistants.next()
    assert [deliver(url, sent).status for sent in (first, own)] == [200, 200]
    process.line(own.id)
    assert [(record.state, record.deliveries) for record in stored(store)] == [("fired", 2), ("skipped", 1)]


@pytest.mark.parametrize("example", ALL_WITH_ASSISTANT)
def test_after_an_assistant_has_left_or_failed_the_next_join_brings_another(
    example: str, start: Start, assistants: Assistants, store: str
) -> None:
    process, url = start(example)

    def fires() -> bool:
        sent = joined()
        assert deliver(url, sent).status == 200
        process.line(sent.id)
        return states(store)[-1] == "fired"

    for code in (0, 3, 0):
        until(fires)
        visit = assistants.next()
        assert visit.room_url == ONE
        assert not visit.knows_secret
        visit.leave(code)
        assert process.popen.poll() is None


@pytest.mark.parametrize("example", MANY_ROOMS)
def test_each_room_gets_an_assistant_of_its_own(example: str, start: Start, assistants: Assistants) -> None:
    _, url = start(example)
    for room in ("/one", "/two"):
        assert deliver(url, joined(room)).status == 200
    assert {assistants.next().room_url for _ in range(2)} == {ONE, TWO}


@pytest.mark.parametrize(
    ("example", "words"), [("quick_start.py", f"the assistant for {ONE} ended with 3"), ("sdk_readme.py", "Gave up:")]
)
def test_an_assistant_that_could_not_join_is_told_of(
    example: str, words: str, start: Start, assistants: Assistants
) -> None:
    process, url = start(example)
    assert deliver(url, joined()).status == 200
    assistants.next().leave(3)
    process.line(words)


def test_a_predicate_that_takes_its_time_delays_no_answer_and_is_asked_once(
    tmp_path: Path, run: Run, assistants: Assistants, store: str
) -> None:
    (tmp_path / "slow.py").write_text(
        """
import quick_start
from whereby_trigger import TRIGGER_EVENT_SUCCESS, Trigger

def needs_assistant(webhook):
    print("asked", flush=True)
    with open("gate") as gate:
        gate.read()
    return quick_start.needs_assistant(webhook)

trigger = Trigger(webhook_triggers={"room.client.joined": needs_assistant}, predicate_timeout=60)
trigger.on(TRIGGER_EVENT_SUCCESS, quick_start.send_assistant)
"""
    )
    os.mkfifo(tmp_path / "gate")
    process = run(*whereby_trigger("start", "slow.py", "--port", "0"))
    url = f"http://127.0.0.1:{process.port()}/"
    sent = joined()
    assert deliver(url, sent).status == 200
    process.line("asked")
    assert [deliver(url, sent).status for _ in range(2)] == [200, 200]
    assert [record.state for record in stored(store)] == ["pending"]
    (tmp_path / "gate").write_text("open")
    assistants.next().leave()
    process.line("The assistant has left")
    assert states(store) == ["fired"]
    assert [record.deliveries for record in stored(store)] == [3]
    assert process.output.count("asked") == 1


def test_a_bot_that_comes_first_brings_no_assistant(start: Start, store: str) -> None:
    _, url = start("quick_start.py")
    assert [deliver(url, joined(role=bot)).status for bot in ("recorder", "assistant")] == [200, 200]
    assert states(store) == ["skipped", "skipped"]


def test_the_example_app_leaves_bots_alone_hands_its_key_on_and_says_who_left(run: Run, assistants: Assistants) -> None:
    process = run(sys.executable, str(EXAMPLES / "example_app.py"), ASSISTANT_KEY="the key", PORT="0")
    url = f"http://127.0.0.1:{process.port()}/"
    assert deliver(url, joined("/two", role="assistant")).status == 200
    assert deliver(url, joined("/one")).status == 200
    visit = assistants.next()
    assert (visit.room_url, visit.key) == (ONE, "the key")
    visit.leave()
    process.line(f"The assistant has left {ONE}")


def test_the_example_app_says_what_to_do_without_a_key(run: Run) -> None:
    process = run(sys.executable, str(EXAMPLES / "example_app.py"))
    assert process.wait() == 1
    assert "ASSISTANT_KEY is not set" in process.output


def test_a_stop_waits_for_the_assistant_and_a_second_one_ends_it(run: Run, assistants: Assistants, store: str) -> None:
    process = run(sys.executable, str(EXAMPLES / "example_app.py"), ASSISTANT_KEY="the key", PORT="0")
    url = f"http://127.0.0.1:{process.port()}/"
    assert deliver(url, joined("/one")).status == 200
    visit = assistants.next()
    process.popen.send_signal(signal.SIGTERM)
    process.line("draining")
    assert deliver(url, joined("/two")).status == 200
    assert assistants.next().room_url == TWO
    process.popen.send_signal(signal.SIGTERM)
    visit.ended()
    assert process.wait() == 0
    assert states(store) == ["fired", "fired"]
