"""Odd JSON, correctly signed, has the verdict of the table on every store, and its bytes are kept."""

from tests.promise.conftest import NewStore
from tests.promise.served import Served
from tests.webhook.test_json_verdicts import REFUSED, TAKEN
from whereby_trigger.store import State


def test_odd_json_has_the_same_verdict_on_every_store(new_store: NewStore) -> None:
    refused = {body for body, _ in REFUSED.values()}
    taken = [body.replace(b'"a1"', b'"odd %d"' % number) for number, body in enumerate(TAKEN.values())]
    with Served("stateless", new_store()) as program:
        assert {sent.status for sent in program.send([*refused, *taken])} == {200}
        records = program.decided(len(refused) + len(taken))
    assert {record.body for record in records if record.state is State.QUARANTINED} == refused
    assert {record.body for record in records if record.state is not State.QUARANTINED} == set(taken)
