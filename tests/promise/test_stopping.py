"""A stop waits for user code for its configured time, and no longer."""

import signal

import pytest

from tests.promise.conftest import NewStore
from tests.promise.served import Served
from whereby_trigger.store import State
from whereby_trigger.testing import webhook

JOINED = webhook("room.client.joined", id="joined", room="/visit-1").raw
LEFT = webhook("room.client.left", id="left", room="/visit-2").raw


def test_neither_a_hanging_predicate_nor_an_endless_listener_outlasts_the_drain(new_store: NewStore) -> None:
    with Served("endless", new_store(), WHEREBY_TRIGGER_DRAIN_TIMEOUT="0.2") as program:
        program.send([JOINED, LEFT])
        program.line("hanging")
        assert program.stop() == 0
        assert "leaving" in program.output
        joined, left = program.records()
    assert (joined.state, left.state) == (State.FIRED, State.PENDING)
    assert [error.partition(" (at ")[0] for error in joined.errors] == ["listener assist: CancelledError"]


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_now(new_store: NewStore, second: signal.Signals) -> None:
    with Served("endless", new_store(), WHEREBY_TRIGGER_PREDICATE_TIMEOUT="3600") as program:
        program.send([JOINED, LEFT])
        program.line("hanging")
        program.popen.send_signal(signal.SIGTERM)
        program.line("draining")
        assert program.stop(second) == 0
        assert "leaving" in program.output


def test_what_arrives_while_it_drains_is_acknowledged_and_decided(new_store: NewStore) -> None:
    late = webhook("room.session.started", id="late", room="/visit-3").raw
    with Served("endless", new_store()) as program:
        program.send([JOINED])
        program.line("assisting")
        program.popen.send_signal(signal.SIGTERM)
        program.line("draining")
        assert [sent.status for sent in program.send([late])] == [200]
        assert [record.state for record in program.decided(2)] == [State.FIRED, State.UNHANDLED]
        assert program.stop() == 0
