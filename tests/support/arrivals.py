"""Test data for stores: arrivals and decisions with defaults for the values a test does not care about."""

from whereby_trigger.store import Arrival, Decision, Holding, Query, Record, State, Store

ROOM = "acme.whereby.com/visit-1"
TYPE = "room.client.joined"
NOW = 1_800_000_000.0


def arrival(
    id: str,
    *,
    body: bytes = b"{}",
    type: str = TYPE,
    room: str | None = ROOM,
    received_at: float = NOW,
    state: State = State.PENDING,
    reason: str = "",
    kept_until: float = 0.0,
) -> Arrival:
    return Arrival(id, type, room, body, received_at, state, reason, kept_until=kept_until)


def decision(
    seq: int,
    id: str,
    state: State = State.FIRED,
    *,
    reason: str = "predicate f returned True",
    attempts: int = 1,
    decided_at: float = NOW + 1,
    errors: tuple[str, ...] = (),
) -> Decision:
    return Decision(seq, id, state, reason, attempts, decided_at, errors)


def holding(
    seq: int,
    id: str,
    seconds: float = 30.0,
    *,
    reason: str = "held for 30 s",
    errors: tuple[str, ...] = (),
) -> Holding:
    return Holding(seq, id, reason, seconds, errors)


async def held(store: Store, id: str, seconds: float = 30.0) -> int:
    """Store a webhook and put it on hold; return its number."""
    added = await store.add(arrival(id))
    assert await store.hold(holding(added.seq, id, seconds))
    return added.seq


async def record(store: Store, id: str) -> Record:
    """Read the one record with this id."""
    (found,) = await store.find(Query(ids=(id,)))
    return found


async def decided(store: Store, id: str, state: State = State.FIRED, **values: float) -> int:
    """Store a webhook and decide it; return its number."""
    added = await store.add(arrival(id, **values))  # type: ignore[arg-type]
    assert await store.decide(decision(added.seq, id, state))
    return added.seq
