"""The second scenario: replicas that share their rooms, of which one is killed and one is told to stop."""

import asyncio
import time
from collections import Counter
from itertools import pairwise
from math import inf
from pathlib import Path

import click
from msgspec import Struct

from whereby_trigger.cli.demo import LEASE, Checks, Happening, Scenario, show_event
from whereby_trigger.store import RoomState, State
from whereby_trigger.testing import Meeting
from whereby_trigger.webhook import RoomWebhook

SESSION_OVER = "the session has ended"
NEW_OWNER = 3
"""The replica that starts when one was killed, and takes over when the other one is told to stop."""


class AssistantRun(Struct, frozen=True):
    """Describe a run as its assistant wrote it down, in seconds since 1970; `ended` is infinite if it noted no end.

    `replica` and `attempt` count from 1.
    """

    room: str
    attempt: int
    replica: int
    started: float
    ended: float = inf
    reason: str = ""


class ReplicaScenario(Scenario):
    """Hold the meetings that several replicas serve, and what was observed.

    `runs_before` are the runs before the replica `killed` died at `killed_at`, `runs` all of them, by their start.
    The replica `drained` was told to stop, and ended with `exit_code`; the third one was up by then. The rooms are not
    those of the first scenario: on a shared store, its sessions would count in these.
    """

    program = "replica_program.py"

    def __init__(self, folder: Path, store: str | None = None) -> None:
        super().__init__(folder, store)
        visit, self.review = Meeting("/visit-8"), Meeting("/review")
        # Seconds: a database has to see the lease expire, and the lock on a SQLite file is free at once.
        self.takeover_within = LEASE + 1 if self._waits_for_lease else 2.0
        self.joins = [
            _to("a host enters /visit-8", visit.join("host", at=0), 1),
            _to("a visitor enters /visit-8", visit.join(at=1), 2),
            _to("another visitor enters /visit-8", visit.join(at=2), 1),
            _to("the owner enters /review", self.review.join("owner", at=3), 2),
            _to("a host enters /review", self.review.join("host", at=4), 1),
            _to("a visitor enters /review", self.review.join(at=5), 1, 2),
        ]
        self.at_once = self.joins[-1]
        self.ends = [
            _to("the session in /visit-8 ends", visit.end(at=60), 3),
            _to("the session in /review ends", self.review.end(at=60), 3),
        ]

    async def _play(self) -> None:
        await asyncio.gather(self._start(1), self._start(2))
        show_event("Two replicas are up on one store, each ready to run assistants")
        await self._deliver(*self.joins)
        await self._until(self._decided)
        await self._until_in_all_rooms(1, 2)
        await self._meanwhile()
        self.runs_before = self._runs()
        self.killed = self.runs_before[0].replica if self.runs_before else 1
        self.drained = 3 - self.killed
        self.killed_at = time.time()
        await self._servers[self.killed].kill()
        rooms = " and ".join(run.room for run in self.runs_before if run.replica == self.killed)
        lease = f"; its lease of {LEASE:g} s has to expire" if self._waits_for_lease else ""
        show_event(f"kill -9 of replica {self.killed}, which had an assistant in {rooms}{lease}")
        await self._until_in_all_rooms(self.drained)
        self._show_since(self.killed_at)
        await self._start(NEW_OWNER)
        stopped_at = time.time()
        show_event(f"Replica {NEW_OWNER} is up, and SIGTERM tells replica {self.drained} to stop")
        self.exit_code = await self._servers[self.drained].stop()
        await self._until_in_all_rooms(NEW_OWNER)
        self._show_since(stopped_at)
        await self._deliver(*self.ends)
        await self._until(self._over)
        await self._servers[NEW_OWNER].stop()
        self.runs, self.rooms = self._runs(), await self._store.rooms()

    async def _meanwhile(self) -> None:
        """Do what a longer scenario adds while both replicas run."""

    async def _until_in_all_rooms(self, *replicas: int) -> None:
        rooms = {step.webhook.data.room_name for step in self.joins}
        await self._until(
            lambda: rooms <= {run.room for run in self._runs() if run.ended == inf and run.replica in replicas}
        )

    async def _over(self) -> bool:
        return all(room.state is RoomState.ENDED for room in await self._store.rooms())

    def _show_since(self, moment: float) -> None:
        for run in self._runs():
            if run.started > moment:
                later = run.started - moment
                click.echo(f"  replica {run.replica} starts an assistant in {run.room:11} {later:8.2f} s later")

    def _runs(self) -> list[AssistantRun]:
        """Read the runs that the assistants noted, in the order of their start; each is noted again at its end."""
        return list({(run.room, run.attempt): run for run in self._noted(AssistantRun)}.values())

    def runs_in(self, room: str) -> list[AssistantRun]:
        """Return the runs in a room, in the order of their start."""
        return sorted((run for run in self.runs if run.room == room), key=lambda run: run.started)

    def end_of(self, run: AssistantRun) -> float:
        """Return when a run ended, on its own or by the kill; infinity if it did not."""
        return min(run.ended, self.killed_at) if run.replica == self.killed else run.ended

    def checks(self) -> Checks:
        joins = Counter(step.webhook.data.room_name for step in self.joins)
        pairs = [pair for room in joins for pair in pairwise(self.runs_in(room))]
        orphaned = {run.room for run in self.runs_before if run.replica == self.killed}
        taken_over = [after for run, after in pairs if run.replica == self.killed]
        seconds = self.takeover_within
        return {
            "Each delivery was answered 200 by every replica that received it": (
                [200 for step in [*self.joins, *self.ends] for _ in step.replicas],
                [status for _, status in self.sent],
            ),
            "A webhook that reached two replicas at once is stored once, delivered twice, and was decided once": (
                [(2, 1, State.FIRED)],
                [(r.deliveries, r.attempts, r.state) for r in self.records if r.id == self.at_once.webhook.id],
            ),
            "Each room got one assistant, although several people joined through both replicas": (
                dict.fromkeys(joins, 1),
                dict(Counter(run.room for run in self.runs_before)),
            ),
            "One join of each room started its assistant; the reasons of the others say that there was one": (
                {room: (1, count - 1) for room, count in joins.items()},
                {room: self._claims(room) for room in joins},
            ),
            f"The other replica took over the rooms of the killed one within {seconds:g} s": (
                sorted((room, self.drained, seconds) for room in orphaned),
                # If it took longer, this shows how long.
                sorted((run.room, run.replica, max(seconds, run.started - self.killed_at)) for run in taken_over),
            ),
            "The replica that was told to stop drained, and exited with 0": (0, self.exit_code),
            "Its assistants were told why, and the third replica started others in their place": (
                sorted((room, "the replica is draining", NEW_OWNER) for room in joins),
                sorted((run.room, run.reason, after.replica) for run, after in pairs if run.replica == self.drained),
            ),
            "No room ever had two assistants at once": (
                [],
                [run.room for run, after in pairs if after.started < self.end_of(run)],
            ),
            "When the sessions ended, the assistants left, and the rooms ended": (
                ([SESSION_OVER] * len(joins), [(RoomState.ENDED, SESSION_OVER)] * len(joins)),
                (
                    [run.reason for room in joins for run in self.runs_in(room)[-1:]],
                    [(room.state, room.reason) for room in self.rooms],
                ),
            ),
        }

    def _claims(self, room: str) -> tuple[int, int]:
        """Return how many joins started the room's assistant, and how many found one."""
        joins = {step.webhook.id for step in self.joins if step.webhook.data.room_name == room}
        reasons = [record.reason for record in self.records if record.id in joins]
        started = sum(reason.endswith("; an assistant starts") for reason in reasons)
        found = sum("; room has an assistant" in reason or "; the room waits for an" in reason for reason in reasons)
        return started, found


def _to(happening: str, webhook: RoomWebhook, *replicas: int) -> Happening:
    numbers = " and ".join(map(str, replicas))
    where = f"to replica {numbers}" if len(replicas) == 1 else f"to replicas {numbers} at once"
    return Happening(happening, webhook, where, replicas=replicas)
