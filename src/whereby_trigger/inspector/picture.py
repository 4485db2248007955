"""A room's time as a picture: from what happened there to lines, bars and marks with their places. Pure.

The template turns these into SVG and escapes every text. Nothing is said by colour alone: each thing has a shape, a
title, and a line in the list below the picture, to which it leads.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct

from whereby_trigger.inspector.reads import ShownEntry
from whereby_trigger.store import ReplicaEnding, RunOutcome, State
from whereby_trigger.text import printable
from whereby_trigger.timeline import Entry, Kind

WIDTH: Final = 1000
LEFT: Final = 150
RIGHT: Final = 20
PEOPLE: Final = 96
"""Height of the lane of people."""

LANE: Final = 30
GAP: Final = 14
TOP: Final = 10
LANES: Final = 12
"""Types of webhooks that get a lane of their own; the others share one."""

RUN_ROWS: Final = 12

_STEPS: Final = (1, 5, 15, 30, 60, 300, 900, 1800, 3600, 10800, 21600, 43200, 86400, 172800, 604800)
_MOST_LABELS: Final = 8


class PictureMark(Struct, frozen=True):
    """A mark at a place, in words, leading to a line of the list; `kind` names its shape and colour."""

    x: float
    y: float
    kind: str
    title: str
    target: str


class Bar(Struct, frozen=True):
    x: float
    y: float
    width: float
    height: float
    kind: str
    title: str
    target: str
    text: str = ""


class Label(Struct, frozen=True):
    x: float
    y: float
    text: str


class Picture(Struct, frozen=True):
    """Hold all there is to draw; paths are in SVG's path language, of numbers only."""

    width: int
    height: int
    left: int
    right: int
    lanes: tuple[Label, ...]
    rules: tuple[float, ...]
    times: tuple[Label, ...]
    humans: str
    humans_line: str
    bots: str
    levels: tuple[Label, ...]
    people_title: str
    people_top: int
    marks: tuple[PictureMark, ...]
    bars: tuple[Bar, ...]
    holds: tuple[Bar, ...]


class PeopleStep(Struct, frozen=True):
    """From a time on, so many humans and bots were in the room."""

    at: float
    humans: int
    bots: int


def draw(entries: Sequence[ShownEntry], since: float, until: float) -> Picture:
    """Draw what happened in a room between two times; entries are oldest first."""
    span = max(1.0, until - since)

    def at(time: float) -> float:
        share = (time - since) / span
        return round(LEFT + min(1.0, max(0.0, share)) * (WIDTH - LEFT - RIGHT), 1)

    steps = _steps(entries)
    humans, line, bots, levels = _people(steps, until, at)
    lanes: list[Label] = [Label(0, TOP + 20, "people" if steps else "people: no counts")]
    rules: list[float] = []
    marks: list[PictureMark] = []
    y = TOP + (PEOPLE + GAP if steps else LANE)

    def lane(name: str, height: int = LANE) -> int:
        """Begin a lane; return the height of its top."""
        nonlocal y
        top = y
        rules.append(top)
        lanes.append(Label(0, top + 20, name))
        y += height
        return top

    ticks = [one for one in entries if one.entry.kind is Kind.WEBHOOK]
    types = list(dict.fromkeys(_type(one) for one in ticks))
    own = types if len(types) <= LANES else types[: LANES - 1]
    tops = {type: lane(printable(type)) for type in own}
    other = lane("other types") if len(own) < len(types) else 0
    for one in ticks:
        middle = tops.get(_type(one), other) + LANE / 2
        marks.append(PictureMark(at(one.entry.at), middle, f"state-{one.entry.fields['state']}", *_told(one)))
    holds = [
        Bar(at(begin), tops.get(_type(one), other) + 11, max(2.0, at(end) - at(begin)), 8, "held", *_told(one))
        for one, begin, end in _holds(entries, until)
    ]
    bars: list[Bar] = []
    runs = _runs(entries)
    if runs:
        y += GAP
        rows = _rows([run for run, _ in runs], until)
        top = lane("assistant", (max(rows) + 1) * (LANE - 6) + 4)
        for (run, words), row in zip(runs, rows, strict=True):
            outcome = run.entry.fields["outcome"]
            width = max(4.0, at(until if run.entry.until is None else run.entry.until) - at(run.entry.at))
            kind = f"run-{RUN_KINDS[None if outcome is None else RunOutcome(outcome)]}"
            name = outcome or "running"
            text = name if width > 8 * len(name) + 12 else ""
            place = (at(run.entry.at), top + 4 + row * (LANE - 6), round(width, 1), LANE - 10)
            bars.append(Bar(*place, kind, f"{name}: {words}", run.anchor, text))
    for name, marked in (
        ("requests, stops", [(one, asked) for one in entries if (asked := _request_kind(one.entry))]),
        ("replicas", [(one, _replica_kind(one.entry)) for one in entries if one.entry.kind is Kind.REPLICA]),
        ("refused, all rooms", [(one, "refusal") for one in entries if one.entry.kind is Kind.REFUSED]),
    ):
        if marked:
            y += GAP if name.startswith("requests") else 0
            middle = lane(name) + LANE / 2
            marks += [PictureMark(at(one.entry.at), middle, kind, *_told(one)) for one, kind in marked]
    return Picture(
        width=WIDTH,
        height=y + 26,
        left=LEFT,
        right=WIDTH - RIGHT,
        lanes=tuple(lanes),
        rules=(*rules, y),
        times=tuple(Label(at(time), y + 18, text) for time, text in clock_marks(since, until)),
        humans=humans,
        humans_line=line,
        bots=bots,
        levels=levels,
        people_title=_people_in_words(steps),
        people_top=TOP,
        marks=tuple(marks),
        bars=tuple(bars),
        holds=tuple(holds),
    )


def _told(one: ShownEntry) -> tuple[str, str]:
    """Return what a mark says, and where it leads."""
    return printable(one.entry.words), one.anchor


def _type(one: ShownEntry) -> str:
    return str(one.entry.fields["type"]) or "unknown type"


def _steps(entries: Sequence[ShownEntry]) -> list[PeopleStep]:
    """Return the counts by the time at which Whereby took them: a delivery may come late."""
    fields = [one.entry.fields for one in entries if one.entry.kind is Kind.WEBHOOK]
    counts = [
        PeopleStep(each["counted_at"], each["humans"], each["bots"]) for each in fields if each["humans"] is not None
    ]
    return sorted(counts, key=lambda step: step.at)


def _holds(entries: Sequence[ShownEntry], until: float) -> Iterator[tuple[ShownEntry, float, float]]:
    """Yield each webhook that waited for its decision, from when, and until when."""
    decided = {one.entry.fields["id"]: one for one in entries if one.entry.kind is Kind.DECIDED}
    for one in entries:
        if one.entry.kind is Kind.WEBHOOK:
            later = decided.get(one.entry.fields["id"])
            if later is not None:
                yield later, one.entry.at, later.entry.at
            elif one.entry.fields["state"] == State.HELD:
                yield one, one.entry.at, until


def _runs(entries: Sequence[ShownEntry]) -> list[tuple[ShownEntry, str]]:
    """Return each run with what is said of it: how it started, and how it ended."""
    ends = {one.entry.fields["run"]: printable(one.entry.words) for one in entries if one.entry.kind is Kind.OVER}
    started = [one for one in entries if one.entry.kind is Kind.STARTED]
    return [
        (one, "; ".join([printable(one.entry.words), *filter(None, [ends.get(one.entry.fields["run"])])]))
        for one in started
    ]


def _request_kind(entry: Entry) -> str | None:
    """Return the mark of what was asked of the room's assistant, or ended it; None if it is none of these."""
    match entry.kind:
        case Kind.ACTED:
            return "acted"
        case Kind.WAITING:
            return "asked"
        case Kind.UNSTARTED:
            return "stop"
        case Kind.OVER if entry.fields["outcome"] == RunOutcome.STOPPED:
            return "stop"
        case Kind.OVER if entry.fields["outcome"] == RunOutcome.REPLICA_DIED:
            return "death"
    return None


def _replica_kind(entry: Entry) -> str:
    ending = entry.fields["ending"]
    return "replica" if ending is None else "stop" if ending == ReplicaEnding.STOPPED else "death"


def clock_marks(since: float, until: float) -> list[tuple[float, str]]:
    """Return at most some times between two, at round numbers of the local clock, and how they are written."""
    step = next((step for step in _STEPS if (until - since) / step <= _MOST_LABELS), _STEPS[-1])
    form = "%H:%M:%S" if step < 60 else "%H:%M" if step < 86400 else "%d %b"
    offset = datetime.fromtimestamp(since).astimezone().utcoffset()
    shift = 0.0 if offset is None else offset.total_seconds()
    first = ((since + shift) // step + 1) * step - shift
    marks: list[tuple[float, str]] = []
    while first < until and len(marks) <= _MOST_LABELS:
        marks.append((first, datetime.fromtimestamp(first).astimezone().strftime(form)))
        first += step
    return marks


def _people(
    steps: Sequence[PeopleStep], until: float, at: Callable[[float], float]
) -> tuple[str, str, str, tuple[Label, ...]]:
    if not steps:
        return "", "", "", ()
    highest = max(1, *(max(step.humans, step.bots) for step in steps))
    bottom = TOP + PEOPLE

    def height(count: int) -> float:
        return round(bottom - count / highest * (PEOPLE - 14), 1)

    def path(counts: Sequence[int]) -> str:
        parts = [f"M{at(steps[0].at)} {height(counts[0])}"]
        for step, count in zip(steps[1:], counts[1:], strict=True):
            parts.append(f"H{at(step.at)}V{height(count)}")
        return "".join([*parts, f"H{at(until)}"])

    line = path([step.humans for step in steps])
    area = f"{line}V{bottom}H{at(steps[0].at)}Z"
    bots = path([step.bots for step in steps]) if any(step.bots for step in steps) else ""
    levels = (Label(LEFT - 8, height(highest) + 4, str(highest)), Label(LEFT - 8, bottom + 4, "0"))
    return area, line, bots, levels


def _people_in_words(steps: Sequence[PeopleStep]) -> str:
    if not steps:
        return "No counts of people have arrived in this time."
    most, bots = max(step.humans for step in steps), max(step.bots for step in steps)
    return f"People over time: at most {most} human{'s' * (most != 1)} and {bots} bot{'s' * (bots != 1)}."


def _rows(runs: Sequence[ShownEntry], until: float) -> list[int]:
    """Return for each run the first row that is free when it starts."""
    free: list[float] = []
    rows: list[int] = []
    for run in runs:
        row = next((n for n, end in enumerate(free) if end <= run.entry.at), len(free))
        row = min(row, RUN_ROWS - 1)
        end = until if run.entry.until is None else run.entry.until
        free[row : row + 1] = [end]
        rows.append(row)
    return rows


RUN_KINDS: Final = {
    None: "on",
    RunOutcome.LEFT: "good",
    RunOutcome.SESSION_OVER: "good",
    RunOutcome.STOPPED: "stopped",
    RunOutcome.HANDED_OVER: "moved",
    RunOutcome.REFUSED: "bad",
    RunOutcome.FAILED: "bad",
    RunOutcome.EXHAUSTED: "bad",
    RunOutcome.REPLICA_DIED: "died",
}
SHAPES: Final = {
    f"state-{State.FIRED}": "triangle",
    f"state-{State.NOTIFIED}": "diamond",
    f"state-{State.FAILED}": "cross",
    f"state-{State.QUARANTINED}": "square",
    f"state-{State.PENDING}": "ring",
    f"state-{State.HELD}": "ring",
    "stop": "square",
    "death": "cross",
    "refusal": "cross",
    "asked": "triangle",
    "acted": "diamond",
}
"""The shapes of marks; all others are dots."""
