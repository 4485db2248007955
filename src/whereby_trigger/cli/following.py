"""Follow what is decided, for `events list --follow`."""

from msgspec import structs

from whereby_trigger.store import Query, Record, State, Store

MOST_AT_ONCE = 500
"""The newest webhooks that are looked at: more than arrive between two looks."""


class Decided:
    """Read the webhooks that match a query as they are decided, each once, and again after a replay."""

    def __init__(self, store: Store, query: Query) -> None:
        self._store = store
        self._query = query
        # In any state: a webhook that is not decided yet is remembered, and looked up until it is.
        self._newest = structs.replace(query, state=None, limit=max(MOST_AT_ONCE, query.limit or 0))
        self._known: set[str] | None = None
        self._undecided: tuple[str, ...] = ()

    async def new(self) -> list[Record]:
        """Return those that were decided since the last call, oldest first; at first, the newest `limit`."""
        newest = await self._store.find(self._newest)
        late = await self._store.find(Query(ids=self._undecided)) if self._undecided else []
        known = self._known or set()
        looked_at = {record.id: record for record in (*newest, *late)}
        self._undecided = tuple(id for id, record in looked_at.items() if record.state is State.PENDING)
        waited = {record.id for record in late}
        decided = [
            record
            for record in (*newest, *(record for record in late if record not in newest))
            if record.state is not State.PENDING
            and (record.id not in known or record.id in waited)
            and self._query.state in (None, record.state)
        ]
        first, self._known = self._known is None, {record.id for record in newest}
        return (decided[: self._query.limit] if first else decided)[::-1]
