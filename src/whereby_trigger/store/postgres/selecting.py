"""The conditions of a query, with the numbers of their parameters."""

from typing import Any

from whereby_trigger.webhook import room_path


class Selection:
    """Collect the conditions of a WHERE, and the values of their parameters."""

    def __init__(self, *first: Any) -> None:
        self._clauses = ["true"]
        self.values = [*first]

    @property
    def conditions(self) -> str:
        """All conditions, joined."""
        return " AND ".join(self._clauses)

    def where(self, clause: str, *values: Any) -> None:
        """Add a condition, in which each {} stands for a value."""
        numbers = range(len(self.values) + 1, len(self.values) + 1 + len(values))
        self._clauses.append(clause.format(*(f"${number}" for number in numbers)))
        self.values.extend(values)

    def where_room(self, room: str) -> None:
        """Add the condition that a row is of a room, given as a key or a name, by the index of names."""
        name = "substr(key, strpos(key, '/')) = {}"
        if room.startswith("/"):
            self.where(name, room_path(room))
        else:
            self.where(name, "/" + room.partition("/")[2])
            self.where("key = {}", room)

    def ordered(self, order: str, limit: int | None) -> str:
        """Return all conditions, the order, and the limit."""
        bound = "" if limit is None else f"LIMIT {int(limit)}"
        return f"WHERE {self.conditions} ORDER BY {order} {bound}"
