"""Odd JSON, correctly signed: never a 500, always kept, and decided if possible."""

import pytest

from tests.support.http import connected, delivery, request, signature
from tests.support.receiver import Receiver
from tests.support.until import eventually
from tests.webhook.test_json_verdicts import REFUSED, TAKEN
from whereby_trigger.store import State
from whereby_trigger.webhook import decode, identify

pytestmark = pytest.mark.anyio


async def deliver(receiver: Receiver, bodies: list[bytes]) -> list[int]:
    """Deliver bodies one after the other on one connection, and return the answers."""
    statuses = []
    async with connected(receiver.port) as connection:
        for body in bodies:
            data = delivery(body) if body else request("POST", "/", [signature(body), ("Content-Length", "0")])
            answer = await connection.ask(data)
            assert answer is not None
            statuses.append(answer.status)
    return statuses


async def test_what_is_no_webhook_is_quarantined_once_with_its_bytes_and_the_reason(receiver: Receiver) -> None:
    bodies = [body for body, _ in REFUSED.values()]
    assert await deliver(receiver, bodies) == [200] * len(bodies)
    assert await deliver(receiver, bodies) == [200] * len(bodies)
    stored = {record.id: record for record in await receiver.records()}
    assert len(stored) == len(set(bodies))
    for body, reason in REFUSED.values():
        record = stored[identify(body)]
        assert (record.state, record.body, record.room, record.type) == (State.QUARANTINED, body, None, "")
        assert record.reason.startswith(reason)
        assert record.deliveries == 2 * bodies.count(body)


async def test_what_is_merely_odd_is_decided_like_any_other(receiver: Receiver) -> None:
    bodies = [body.replace(b'"a1"', b'"odd %d"' % number) for number, body in enumerate(TAKEN.values())]
    assert await deliver(receiver, bodies) == [200] * len(bodies)

    async def all_decided() -> bool:
        return all(record.state is not State.PENDING for record in await receiver.records())

    await eventually(all_decided)
    stored = {record.id: record for record in await receiver.records()}
    assert len(stored) == len(bodies)
    for body in bodies:
        record = stored[decode(body).id]
        assert record.body == body
        if record.type == "room.client.waved":
            assert record.state is State.UNHANDLED
        elif record.room is None:
            assert record.state is State.FAILED
            assert "returned True, but no subdomain in the webhook" in record.reason
        else:
            assert record.state is State.FIRED
