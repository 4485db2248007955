"""Simulate Whereby: meetings at a rate, with the faults that deliveries have.

`plan` is pure: the same seed makes the same meetings.
"""

import asyncio
import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from itertools import count
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from whereby_trigger.testing.meeting import Meeting
from whereby_trigger.testing.sender import NO_ANSWER, Response, Sender, send_paced
from whereby_trigger.webhook import Webhook

LONGEST: Final = 60.0
"""Seconds for which a meeting lasts, or less if its room is needed again before."""

REUSED_AFTER: Final = 0.9
"""The share of the time until a room's next meeting for which its meeting lasts."""

DELAY, LATE = 0.1, 1.5
"""How late a webhook is that others overtake, and an end that is late, at most, in lengths of a meeting.

The next meeting in the room may have begun before a late end comes.
"""


class Load(Struct, frozen=True):
    """Describe meetings to simulate: how many begin each minute, for how many minutes, in how many rooms.

    At most `people` people join each meeting. A meeting lasts a minute, or less if its room is needed again before.
    """

    meetings_per_minute: float = 10.0
    minutes: float = 1.0
    rooms: int = 20
    people: int = 3
    subdomain: str = "acme"


class Faults(Struct, frozen=True):
    """Hold the shares of webhooks, from 0 to 1, that something happens to.

    `duplicates` are sent twice; `reorder` are sent so late that others overtake them; `late_ends` are ends of sessions
    that may come after the room's next meeting has begun; `lost_ends` are never sent. `bad_signatures` is the number of
    forged webhooks for each real one.
    """

    duplicates: float = 0.0
    reorder: float = 0.0
    late_ends: float = 0.0
    lost_ends: float = 0.0
    bad_signatures: float = 0.0


class Planned(Struct, frozen=True):
    """Describe one delivery: when it is sent, in seconds after the beginning, and what; a forged one must get 401."""

    at: float
    webhook: Webhook
    forged: bool = False


def plan(load: Load, faults: Faults, *, begin: datetime, seed: int) -> Iterator[Planned]:
    """Yield the deliveries of simulated meetings, in the order in which they are sent; the same ones for a seed."""
    chance = random.Random(seed)  # noqa: S311 - it makes up meetings
    order = count()
    waiting: list[tuple[float, int, Planned]] = []
    for number in range(max(1, round(load.meetings_per_minute * load.minutes))):
        starts = number * 60 / load.meetings_per_minute
        while waiting and waiting[0][0] <= starts:
            yield heapq.heappop(waiting)[2]
        for planned in _meeting(load, faults, number, starts, begin, chance):
            heapq.heappush(waiting, (planned.at, next(order), planned))
    while waiting:
        yield heapq.heappop(waiting)[2]


def _meeting(
    load: Load, faults: Faults, number: int, starts: float, begin: datetime, chance: random.Random
) -> Iterator[Planned]:
    lasts = min(LONGEST, REUSED_AFTER * load.rooms * 60 / load.meetings_per_minute)
    meeting = Meeting(
        f"/room-{number % load.rooms + 1}",
        subdomain=load.subdomain,
        begin=begin + timedelta(seconds=starts),
        make_id=lambda: chance.randbytes(16).hex(),
    )
    for at, webhook in _happenings(meeting, lasts, chance.randint(1, load.people), chance):
        is_end = webhook.type == "room.session.ended"
        if is_end and chance.random() < faults.lost_ends:
            continue
        sent_at = starts + at
        if chance.random() < faults.reorder:
            sent_at += chance.uniform(0, DELAY * lasts)
        if is_end and chance.random() < faults.late_ends:
            sent_at += chance.uniform(0, LATE * lasts)
        yield Planned(sent_at, webhook)
        if chance.random() < faults.duplicates:
            yield Planned(sent_at + chance.uniform(0, DELAY * lasts), webhook)
        if chance.random() < faults.bad_signatures:
            forged = Meeting(meeting.room, make_id=lambda: chance.randbytes(16).hex(), begin=meeting.begin)
            yield Planned(sent_at, forged.request_assistant(at=at), forged=True)


def _happenings(meeting: Meeting, lasts: float, people: int, chance: random.Random) -> Iterator[tuple[float, Webhook]]:
    """Yield what happens in a meeting, each with its second: everybody joins, then everybody leaves.

    The session starts when two are in the room. Source: Whereby docs, Tracking room events with Webhooks.
    """
    joins = sorted(chance.uniform(0, 0.4 * lasts) for _ in range(people - 1))
    yield 0.0, meeting.join("host", at=0)
    for at in joins:
        yield at, meeting.join(at=at)
    started_at = (joins[0] if joins else 0.0) + min(0.01, 0.01 * lasts)
    yield started_at, meeting.start(at=started_at)
    for at in sorted(chance.uniform(0.5 * lasts, 0.98 * lasts) for _ in range(people)):
        yield at, meeting.leave(at=at)
    yield 0.99 * lasts, meeting.end(at=0.99 * lasts)


class SimulationReport:
    """Count what was sent and what came of it.

    `sent` counts webhooks, `requests` the requests for them with all retries; `retried` and `given_up` count webhooks.
    `acknowledged` holds the ids that were answered 2xx. `wrong` counts answers that mean a mistake in the set-up: a
    4xx or a redirect for a real webhook, or anything but 401 for a forged one. `seconds` holds how long each answer
    took. `answers` counts requests by status, and `unanswered` those without an answer by the reason,
    `unanswered_by_status` by the status that stands for it.
    """

    def __init__(self) -> None:
        self.sent = self.requests = self.retried = self.given_up = self.wrong = 0
        self.answers: Counter[int] = Counter()
        self.unanswered: Counter[str] = Counter()
        self.unanswered_by_status: Counter[int] = Counter()
        self.acknowledged: set[str] = set()
        self.seconds: list[float] = []

    def note(self, planned: Planned, answers: list[Response]) -> None:
        """Count the answers to one delivery, the last of which was the final one."""
        self.sent += 1
        self.requests += len(answers)
        self.retried += len(answers) > 1
        self.answers.update(answer.status for answer in answers)
        self.unanswered.update(answer.reason for answer in answers if answer.missing)
        self.unanswered_by_status.update(answer.status for answer in answers if answer.missing)
        self.seconds += [answer.seconds for answer in answers if not answer.missing]
        final = answers[-1].status
        if planned.forged:
            self.wrong += final != 401
            return
        if 200 <= final < 300:
            self.acknowledged.add(planned.webhook.id)
        elif final >= 500 or final == NO_ANSWER:
            self.given_up += 1
        else:
            # A redirect, too: nothing says that Whereby follows it.
            self.wrong += 1

    def percentile(self, share: float) -> float:
        """Return the seconds within which this share of the answers came, from 0 to 1; 0 without an answer."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


async def send_all(
    plan: Iterable[Planned],
    sender: Sender,
    stop: asyncio.Event,
    noted: Callable[[SimulationReport], None] = lambda _: None,
) -> SimulationReport:
    """Send what is planned, each when it is due, whatever the answers to those before; return the report.

    Once `stop` is set nothing more is sent, and the answers to what was sent are waited for. `noted` is called with
    the report after each answer.
    """
    report = SimulationReport()

    async def deliver(planned: Planned) -> None:
        report.note(planned, await sender.deliver(planned.webhook.raw, forged=planned.forged))
        noted(report)

    await send_paced(((planned.at, planned) for planned in plan), deliver, stop)
    return report


Happening = Literal[
    "join",
    "leave",
    "knock",
    "cancel_knock",
    "start",
    "end",
    "request_assistant",
    "start_transcription",
    "finish_transcription",
    "fail_transcription",
    "finish_recording",
]

EXAMPLE = 'write it like {"at": 0, "do": "join", "role": "host"}'


class ScriptStep(Struct, frozen=True, forbid_unknown_fields=True):
    """Describe one thing that happens in a meeting, and how its webhook is delivered.

    `at` is in seconds after the beginning; `role` and `name` say who, `data` are more fields by their wire names.
    `delay` is how many seconds later it is sent, `times` how often; a `lost` one is not sent, a `forged` one has a
    wrong signature. After an `end`, the room's next step begins another meeting in it.
    """

    at: float
    do: Happening
    room: str = "/visit-1"
    role: str | None = None
    name: str | None = None
    data: dict[str, Any] = {}
    delay: float = 0.0
    times: int = 1
    lost: bool = False
    forged: bool = False


class ScriptError(ValueError):
    """Report a line of a script that cannot be played."""


def read_script(lines: Iterable[str]) -> list[ScriptStep]:
    """Read a script's steps; empty lines and lines that start with `#` are skipped.

    Raises ScriptError, which names the line.
    """
    steps: list[ScriptStep] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            steps.append(msgspec.json.decode(line, type=ScriptStep))
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            raise ScriptError(f"line {number} is not a step ({error}): {EXAMPLE}") from error
    return steps


def play(steps: Iterable[ScriptStep], *, begin: datetime, subdomain: str = "acme") -> Iterator[Planned]:
    """Yield the deliveries of a script, in the order in which they are sent. Raises ScriptError."""
    meetings: dict[str, Meeting] = {}
    ended: set[str] = set()
    planned: list[Planned] = []
    for number, step in enumerate(sorted(steps, key=lambda step: step.at), 1):
        if step.room not in meetings or step.room in ended:
            meetings[step.room] = Meeting(step.room, subdomain=subdomain, begin=begin)
            ended.discard(step.room)
        try:
            webhook = _webhook(meetings[step.room], step, begin)
        except (TypeError, ValueError, OverflowError) as error:
            raise ScriptError(f"step {number}, {step.do} at {step.at:g} s, cannot happen: {error}") from error
        if step.do == "end":
            ended.add(step.room)
        if not step.lost:
            planned += [Planned(step.at + step.delay, webhook, step.forged)] * step.times
    return iter(sorted(planned, key=lambda one: one.at))


def _webhook(meeting: Meeting, step: ScriptStep, begin: datetime) -> Webhook:
    at = (begin + timedelta(seconds=step.at) - meeting.begin).total_seconds()
    if step.do == "join":
        return meeting.join(step.role or "visitor", name=step.name, at=at, data=step.data)
    if step.do == "knock":
        return meeting.knock(step.name, at=at, data=step.data)
    if step.data:
        raise ValueError("only a join and a knock take data")
    who = step.name or step.role
    happen: dict[str, Callable[[], Webhook]] = {
        "leave": lambda: meeting.leave(who, at=at),
        "cancel_knock": lambda: meeting.cancel_knock(who, at=at),
        "start": lambda: meeting.start(at=at),
        "end": lambda: meeting.end(at=at),
        "request_assistant": lambda: meeting.request_assistant(at=at),
        "start_transcription": lambda: meeting.start_transcription(at=at),
        "finish_transcription": lambda: meeting.finish_transcription(at=at),
        "fail_transcription": lambda: meeting.fail_transcription(at=at),
        "finish_recording": lambda: meeting.finish_recording(at=at),
    }
    return happen[step.do]()
