"""The script of the second act: who enters which room, and the replica that each delivery reaches."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from whereby_trigger.cli.demo.meeting import STANDUP, VISIT, Step
from whereby_trigger.testing import webhook


class Call(Struct, frozen=True):
    """Describe one delivery, and to which replica it goes; they count from 1."""

    step: Step
    replica: int


class Crowd:
    """Hold the script; `begin` is when the first person enters."""

    def __init__(self, begin: datetime) -> None:
        def about(room: str, seconds: float) -> dict[str, Any]:
            moment = begin + timedelta(seconds=seconds)
            return {"room": room, "created_at": moment, "room_session_id": f"session in {room}"}

        def joins(seconds: float, who: str, role: str, room: str, replica: int) -> Call:
            sent = webhook("room.client.joined", role_name=role, **about(room, seconds))
            return Call(Step(f"{who} enters {room}", sent, f"to replica {replica}"), replica)

        def ends(seconds: float, room: str, replica: int) -> Call:
            sent = webhook("room.session.ended", **about(room, seconds))
            return Call(Step(f"the session in {room} ends", sent, f"to replica {replica}"), replica)

        self.joins: Sequence[Call] = [
            joins(0, "a host", "host", VISIT, replica=1),
            joins(1, "a visitor", "visitor", VISIT, replica=2),
            joins(2, "another visitor", "visitor", VISIT, replica=1),
            joins(3, "the owner", "owner", STANDUP, replica=2),
            joins(4, "a host", "host", STANDUP, replica=1),
        ]
        self.ends: Sequence[Call] = [ends(60, VISIT, replica=3), ends(60, STANDUP, replica=3)]

    def rooms(self) -> dict[str, int]:
        """Count the joins of each room."""
        names = [call.step.webhook.data.room_name for call in self.joins]
        return {name: names.count(name) for name in dict.fromkeys(names)}
