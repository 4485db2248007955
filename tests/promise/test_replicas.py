"""Several replicas on one store: whichever a delivery reaches, and however many, it is one webhook."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tests.promise.conftest import NewStore
from tests.promise.served import Served
from whereby_trigger.store import State
from whereby_trigger.testing import webhook

ROOMS = 5
WEBHOOKS = 60


def decisions(*programs: Served) -> Counter[str]:
    """Count by webhook id how many log lines report a decision."""
    lines = [json.loads(line) for program in programs for line in program.output.splitlines()]
    return Counter(line["webhook_id"] for line in lines if line.get("decision"))


def test_what_reaches_three_replicas_at_once_is_one_row_and_one_decision(new_store: NewStore) -> None:
    store, ids = new_store(), [f"{number:03}" for number in range(WEBHOOKS)]
    bodies = [webhook("room.client.joined", id=id, room=f"/visit-{int(id) % ROOMS}").raw for id in ids]
    with Served("stateless", store) as one, Served("stateless", store) as two, Served("stateless", store) as three:
        replicas = (one, two, three)
        with ThreadPoolExecutor(len(replicas)) as threads:
            sent = list(threads.map(lambda replica: replica.send(bodies, connections=4), replicas))
        assert {answer.status for answers in sent for answer in answers} == {200}
        records = one.decided(WEBHOOKS)
        assert [replica.stop() for replica in replicas] == [0, 0, 0]
        assert decisions(*replicas) == Counter(ids)
    assert sorted(record.id for record in records) == ids
    assert {(record.state, record.attempts, record.deliveries) for record in records} == {(State.FIRED, 1, 3)}
