"""The script of the second act: who enters which room, and the replicas that each delivery reaches."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from whereby_trigger.cli.demo.meeting import Step
from whereby_trigger.testing import webhook

VISIT = "/visit-8"
REVIEW = "/review"
"""Not the first act's rooms: where both are played on one store, its sessions would count in these."""


class LoadCall(Struct, frozen=True):
    """Describe one delivery, and to which replicas it goes at once; they count from 1."""

    step: Step
    replicas: tuple[int, ...]


class Crowd:
    """Hold the script; `begin` is when the first person enters."""

    def __init__(self, begin: datetime) -> None:
        def about(room: str, seconds: float) -> dict[str, Any]:
            moment = begin + timedelta(seconds=seconds)
            return {"room": room, "created_at": moment, "room_session_id": f"session in {room}"}

        def joins(seconds: float, who: str, role: str, room: str, *replicas: int) -> LoadCall:
            sent = webhook("room.client.joined", role_name=role, **about(room, seconds))
            return LoadCall(Step(f"{who} enters {room}", sent, _to(replicas)), replicas)

        def ends(seconds: float, room: str, *replicas: int) -> LoadCall:
            sent = webhook("room.session.ended", **about(room, seconds))
            return LoadCall(Step(f"the session in {room} ends", sent, _to(replicas)), replicas)

        self.joins: Sequence[LoadCall] = [
            joins(0, "a host", "host", VISIT, 1),
            joins(1, "a visitor", "visitor", VISIT, 2),
            joins(2, "another visitor", "visitor", VISIT, 1),
            joins(3, "the owner", "owner", REVIEW, 2),
            joins(4, "a host", "host", REVIEW, 1),
        ]
        self.at_once = joins(5, "a visitor", "visitor", REVIEW, 1, 2)
        self.meanwhile = joins(30, "a latecomer", "visitor", REVIEW, 1)
        self.ends: Sequence[LoadCall] = [ends(60, VISIT, 3), ends(60, REVIEW, 3)]

    def played(self, *, outage: bool) -> Sequence[LoadCall]:
        """List what is delivered; `meanwhile` is where the database dies on the way."""
        return [*self.joins, self.at_once, *([self.meanwhile] if outage else []), *self.ends]

    def rooms(self, *, outage: bool) -> dict[str, int]:
        """Count the joins of each room."""
        joins = [call.step.webhook for call in self.played(outage=outage) if call not in self.ends]
        names = [webhook.data.room_name for webhook in joins]
        return {name: names.count(name) for name in dict.fromkeys(names)}


def _to(replicas: tuple[int, ...]) -> str:
    numbers = " and ".join(map(str, replicas))
    return f"to replica {numbers}" if len(replicas) == 1 else f"to replicas {numbers} at once"
