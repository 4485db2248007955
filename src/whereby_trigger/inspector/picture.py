"""A room's time as a picture: from what happened there to lines, bars and marks with their places. Pure.

The template turns these into SVG and escapes every text. Nothing is said by colour alone: each thing has a shape, a
title, and a line in the list below the picture, to which it leads.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct

from whereby_trigger.inspector.history import Happening, PeopleStep, RoomHistory
from whereby_trigger.store import RunOutcome, State

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


def draw(timeline: RoomHistory) -> Picture:
    """Draw a room's timeline between its `since` and `until`."""
    span = max(1.0, timeline.until - timeline.since)

    def at(time: float) -> float:
        share = (time - timeline.since) / span
        return round(LEFT + min(1.0, max(0.0, share)) * (WIDTH - LEFT - RIGHT), 1)

    lanes: list[Label] = [Label(0, TOP + 20, "people" if timeline.steps else "people: no counts")]
    rules: list[float] = []
    marks: list[PictureMark] = []
    holds: list[Bar] = []
    bars: list[Bar] = []
    humans, line, bots, levels = _people(timeline.steps, timeline.until, at)
    y = TOP + (PEOPLE + GAP if timeline.steps else LANE)
    ticks = [one for one in timeline.happenings if one.kind == "webhook"]
    types = list(dict.fromkeys(one.lane for one in ticks))
    shown = types if len(types) <= LANES else [*types[: LANES - 1], "other types"]
    for type in shown:
        rules.append(y)
        lanes.append(Label(0, y + 20, type))
        for one in ticks:
            if one.lane == type or (type == "other types" and one.lane not in shown):
                if one.until is not None:
                    width = max(2.0, at(one.until) - at(one.at))
                    holds.append(Bar(at(one.at), y + 11, round(width, 1), 8, "held", one.words, one.anchor))
                marks.append(PictureMark(at(one.at), y + LANE / 2, f"state-{one.state}", one.words, one.anchor))
        y += LANE
    runs = [one for one in timeline.happenings if one.kind == "run"]
    if runs:
        y += GAP
        rules.append(y)
        rows = _rows(runs, timeline.until)
        lanes.append(Label(0, y + 20, "assistant"))
        for one, row in rows:
            end = timeline.until if one.until is None else one.until
            width = max(4.0, at(end) - at(one.at))
            text = one.state if width > 8 * len(one.state) + 12 else ""
            top = y + 4 + row * (LANE - 6)
            kind = f"run-{one.lane}"
            bars.append(Bar(at(one.at), top, round(width, 1), LANE - 10, kind, one.words, one.anchor, text))
        y += (max(row for _, row in rows) + 1) * (LANE - 6) + 4
    others = [one for one in timeline.happenings if one.kind in ("stop", "death", "refusal", "asked")]
    for name, kinds in (("requests, stops", ("asked", "stop", "death")), ("refused, all rooms", ("refusal",))):
        of_lane = [one for one in others if one.kind in kinds]
        if of_lane:
            y += GAP if name.startswith("requests") else 0
            rules.append(y)
            lanes.append(Label(0, y + 20, name))
            marks += [PictureMark(at(one.at), y + LANE / 2, one.kind, one.words, one.anchor) for one in of_lane]
            y += LANE
    return Picture(
        width=WIDTH,
        height=y + 26,
        left=LEFT,
        right=WIDTH - RIGHT,
        lanes=tuple(lanes),
        rules=(*rules, y),
        times=tuple(Label(at(time), y + 18, text) for time, text in clock_marks(timeline.since, timeline.until)),
        humans=humans,
        humans_line=line,
        bots=bots,
        levels=levels,
        people_title=_people_in_words(timeline.steps),
        people_top=TOP,
        marks=tuple(marks),
        bars=tuple(bars),
        holds=tuple(holds),
    )


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


def _people(steps: Sequence[PeopleStep], until: float, at: object) -> tuple[str, str, str, tuple[Label, ...]]:
    if not steps or not callable(at):
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


def _rows(runs: Sequence[Happening], until: float) -> list[tuple[Happening, int]]:
    """Return each run with the first row that is free when it starts."""
    free: list[float] = []
    placed: list[tuple[Happening, int]] = []
    for run in sorted(runs, key=lambda one: one.at):
        row = next((n for n, end in enumerate(free) if end <= run.at), len(free))
        row = min(row, RUN_ROWS - 1)
        end = until if run.until is None else run.until
        if row == len(free):
            free.append(end)
        else:
            free[row] = end
        placed.append((run, row))
    return placed


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
    f"state-{State.FAILED}": "cross",
    f"state-{State.QUARANTINED}": "square",
    f"state-{State.PENDING}": "ring",
    f"state-{State.HELD}": "ring",
    "stop": "square",
    "death": "cross",
    "refusal": "cross",
    "asked": "triangle",
}
"""The shapes of marks; all others are dots."""
