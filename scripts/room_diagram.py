"""Print the states of a room as docs/assistants.md draws them, made from the table that the store goes by."""

from collections.abc import Iterator

from whereby_trigger.store import ROOM_TRANSITIONS, RoomState


def diagram() -> str:
    """Write the table as a state diagram of Mermaid's."""
    return "\n".join(["stateDiagram-v2", *(f"    {line}" for line in _lines())]) + "\n"


def _lines() -> Iterator[str]:
    yield f"[*] --> {RoomState.WAITING}"
    for state in RoomState:
        following = ROOM_TRANSITIONS[state]
        yield from (f"{state} --> {other}" for other in RoomState if other in following)
        if not following:
            yield f"{state} --> [*]"


if __name__ == "__main__":
    print(diagram(), end="")
