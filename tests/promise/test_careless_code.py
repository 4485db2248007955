"""Slow and raising user code costs no delivery, no second decision and no process."""

from tests.promise.conftest import NewStore
from tests.promise.served import Served
from tests.support.until import until
from tests.support.whereby import request
from whereby_trigger.store import State
from whereby_trigger.testing import webhook

AT_ONCE = 1.5
"""Seconds within which a delivery is answered: a quarter of what the slow code takes, on a machine that is busy."""

TYPES = ("room.client.joined", "room.client.left", "room.client.knocked")
"""Types that the program handles in 6 s, in 6 s in its thread, and immediately with two listeners that raise."""


def test_each_webhook_is_answered_at_once_and_decided_once_and_the_process_lives(new_store: NewStore) -> None:
    bodies = {type: webhook(type, id=type, room=f"/{type}").raw for type in TYPES}
    with Served("careless", new_store()) as program:
        for type in TYPES:
            fastest = 60.0
            for _ in range(3):
                (sent,) = program.send([bodies[type]])
                assert sent.status == 200
                fastest = min(fastest, sent.seconds)
            assert fastest < AT_ONCE
        assert State.PENDING in {record.state for record in program.records()}
        program.decided(len(TYPES))
        # A listener's error may be written only after the decision.
        until(lambda: sum(len(record.errors) for record in program.records()) >= 2)
        records = {record.id: record for record in program.records()}
        assert {record.state for record in records.values()} == {State.FIRED}
        assert {record.attempts for record in records.values()} == {1}
        assert {record.deliveries for record in records.values()} == {3}
        assert [error.partition(" (at ")[0] for error in sorted(records["room.client.knocked"].errors)] == [
            "listener raises: LookupError",
            "listener rejects: ConnectionError",
        ]
        assert request("GET", f"http://127.0.0.1:{program.answers_on}/livez").status == 200
        assert program.stop() == 0
        assert sorted(line for line in program.output.splitlines() if line.startswith("told")) == [
            f"told {type} 1" for type in sorted(TYPES)
        ]
