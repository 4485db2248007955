"""The first scenario: odd deliveries to one server, which is killed between an acknowledgement and its decision."""

import time
from collections import Counter
from pathlib import Path

from whereby_trigger.cli.demo import Checks, Happening, Scenario, show_event
from whereby_trigger.store import State
from whereby_trigger.testing import Meeting

Heard = tuple[str, int]
"""What a listener wrote down: a webhook's id and the attempt."""


class CrashScenario(Scenario):
    """Hold the meetings during which a server is killed, and what was observed.

    `heard` is what the listeners noted, `refusals` the reason of each refusal; `heard_at_death` and `records_at_death`
    are from between the kill and the restart.
    """

    program = "crash_program.py"

    def __init__(self, folder: Path, store: str | None = None) -> None:
        super().__init__(folder, store)
        visit, standup = Meeting("/visit-7"), Meeting("/standup")
        self.host = Happening("a host enters /visit-7", visit.join("host", at=0), state=State.FIRED, heard=1)
        self.bot = Happening(
            "the assistant itself enters /visit-7", visit.join("assistant", at=2), "bot", State.SKIPPED
        )
        self.owner = Happening("the owner enters /standup", standup.join("owner", at=3), state=State.FIRED, heard=1)
        joined, left = standup.join("visitor", at=5), standup.leave("visitor", at=9)
        self.left = Happening("a visitor leaves /standup ...", left, "too early", State.NOTIFIED, heard=1)
        self.joined = Happening("... whose join arrives only now", joined, "too late", State.SKIPPED)
        self.session = Happening(
            "the session in /standup starts", standup.start(at=10), "then killed", State.FIRED, heard=2
        )
        invitation = standup.request_assistant(at=12)
        self.forged = Happening("a stranger invites an assistant into /standup", invitation, "forged", answer=401)
        self.stored = [self.host, self.bot, self.owner, self.left, self.joined, self.session]

    async def _play(self) -> None:
        server = await self._start()
        show_event("A server is up, on an empty store")
        await self._deliver(self.host, self.host.again("Whereby sends it again"), *self.stored[1:-1])
        await self._until(self._decided)
        await self._deliver(self.session)
        await server.kill()
        show_event("kill -9, after the 200 and before the decision: the predicate was waiting for a calendar")
        self.records_at_death, self.heard_at_death = await self._stored(), self._noted(Heard)
        (self._folder / "calendar.txt").write_text("/standup\n", encoding="utf-8")
        server = await self._start()
        show_event("A server is up again, on the same store")
        await self._until(self._decided)
        await self._deliver(self.session.again("Whereby repeats the start of the session"), self.forged)
        await self._until(self._decided)
        await server.stop()
        self.heard = self._noted(Heard)
        refused = await self._store.refusals(0, time.time())
        self.refusals = [counted.reason for counted in refused for _ in range(counted.count)]

    def checks(self) -> Checks:
        names = {step.webhook.id: step.happening for step in self.stored}
        stored = {names.get(record.id, record.id): record for record in self.records}
        deliveries = Counter(step.webhook.id for step, _ in self.sent)
        decided = sorted((record.decided_at, record.id) for record in self.records if record.decided_at is not None)
        out_of_order = (self.left.webhook.id, self.joined.webhook.id)
        session = self.session.webhook.id
        return {
            "Each delivery got its answer: 200 once it was on disk, 401 if it was forged": (
                [step.answer for step, _ in self.sent],
                [status for _, status in self.sent],
            ),
            "The forged delivery was refused for its signature": (["wrong signature"], self.refusals),
            "The store holds each webhook that was answered 200, once, in order of arrival, and nothing else": (
                [*names.values()],
                [*stored],
            ),
            "Duplicates were counted and not decided again, even across the restart": (
                {name: deliveries[id] for id, name in names.items()},
                {name: record.deliveries for name, record in stored.items()},
            ),
            "Each webhook has the decision of its predicate": (
                {step.happening: step.state for step in self.stored},
                {name: record.state for name, record in stored.items()},
            ),
            "The bot's own join sent no assistant, and the reason says why": (
                ["predicate first_person returned False (a bot's own event: is_human)"],
                [record.reason for record in self.records if record.id == self.bot.webhook.id],
            ),
            "The two webhooks out of order were decided one by one, in order of arrival": (
                [*out_of_order],
                [id for _, id in decided if id in out_of_order],
            ),
            "When the server was killed, the acknowledged webhook was on disk, undecided, and no listener was called": (
                ([State.PENDING], []),
                (
                    [record.state for record in self.records_at_death if record.id == session],
                    [id for id, _ in self.heard_at_death if id == session],
                ),
            ),
            "Listeners were called once for each success; for the interrupted one, after the restart, as attempt 2": (
                sorted((step.happening, step.heard) for step in self.stored if step.heard is not None),
                sorted((names.get(id, id), attempt) for id, attempt in self.heard),
            ),
        }
