"""Read a written meeting: one JSON object a line, each of them one thing that happens."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec
from msgspec import Struct

from whereby_trigger.testing.meeting import Meeting
from whereby_trigger.testing.simulator import Planned
from whereby_trigger.webhook import Webhook

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
    wrong signature. A room's next `start` begins another meeting in it.
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
        except (TypeError, ValueError) as error:
            raise ScriptError(f"step {number}, {step.do} at {step.at:g} s, cannot happen: {error}") from error
        if step.do == "end":
            ended.add(step.room)
        if not step.lost:
            planned += [Planned(step.at + step.delay, webhook, step.forged)] * step.times
    return iter(sorted(planned, key=lambda one: one.at))


def _webhook(meeting: Meeting, step: ScriptStep, begin: datetime) -> Webhook:
    at = (begin + timedelta(seconds=step.at) - meeting.begin).total_seconds()
    if step.do == "join":
        return meeting.join(step.role or "visitor", name=step.name, at=at, **step.data)
    if step.do == "knock":
        return meeting.knock(step.name, at=at, **step.data)
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
