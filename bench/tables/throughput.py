"""Table 1: how many webhooks a second one core can do, set against the peer and against the server alone."""

from collections.abc import Iterator
from typing import Literal, get_args

from msgspec import Struct

from bench.bodies import bodies
from bench.outcome import Grid, Outcome, Verdict
from bench.problems import Problems
from bench.rounds import Ring
from bench.series import CHECKS, CHECKS_TITLE, LATENCIES, SPEED, Series, doubts
from bench.setting import Setting
from bench.sides import CEILING, NAMES, PEER, POSTGRES, SIDES, SQLITE, Side

SQLITE_TARGET = "End to end on SQLite at least 2.5 times the peer's webhooks per second"
POSTGRES_TARGET = "End to end on PostgreSQL at least 1.5 times the peer's webhooks per second"
P99_TARGET = "p99 under load on SQLite below the peer's"
SYNC_TARGET = "A sync lambda and a sync listener cost at most 15 % more than async ones"
TARGETS = (SQLITE_TARGET, POSTGRES_TARGET, P99_TARGET, SYNC_TARGET)

Form = Literal["async", "sync", "logged"]
"""How the trigger is written: with coroutines, with plain functions, or with coroutines and its log on."""

ASYNC, SYNC, LOGGED = FORMS = get_args(Form)
OPTIONS = {ASYNC: (), SYNC: ("--form", "sync"), LOGGED: ("--log", "/dev/null")}
"""The options of `programs.receiver` that make it so."""

ABOVE = 1.5
"""How many times the fastest side the ceiling must be, so that the server is not all that is measured."""


class Dose(Struct, frozen=True):
    """Say how much is measured; by default what the page reports."""

    webhooks: int = 200_000
    rounds: int = 5
    connections: int = 64
    sides: tuple[Side, ...] = SIDES
    forms: tuple[Form, ...] = FORMS


Entry = tuple[str, str]
"""A side and a form."""


async def run(setting: Setting, dose: Dose) -> Outcome:
    """Measure every side in turn, as many times over as there are rounds."""
    series: dict[Entry, Series] = {}
    problems = Problems()
    ring = Ring(setting, bodies())
    for number in range(dose.rounds):
        for side, form in entries(dose):
            with problems.of(_name((side, form))):
                async with setting.up(side, options=OPTIONS[form]) as server:
                    measured = await ring.round([server], dose.webhooks, dose.connections)
                series.setdefault((side, form), Series()).add(number, measured)
    return Outcome(_grids(series), list(_verdicts(series)), problems.all, list(_doubts(series)))


def entries(dose: Dose) -> Iterator[Entry]:
    """Give each side and form there is: the ceiling and the peer have but one, the log is the same on every store."""
    for form in dose.forms:
        for side in dose.sides:
            if form == ASYNC or (form == SYNC and side in (SQLITE, POSTGRES)) or side == SQLITE:
                yield side, form


def _grids(series: dict[Entry, Series]) -> list[Grid]:
    peer = series.get((PEER, ASYNC))
    figures = [[_name(entry), *one.speeds(), one.ratio_to(peer), *one.latencies()] for entry, one in series.items()]
    checks = [[_name(entry), *one.checks()] for entry, one in series.items()]
    return [Grid(("", *SPEED, "× peer", *LATENCIES), figures), Grid(("", *CHECKS), checks, CHECKS_TITLE)]


def _verdicts(series: dict[Entry, Series]) -> Iterator[Verdict]:
    peer, sqlite = series.get((PEER, ASYNC)), series.get((SQLITE, ASYNC))
    postgres, sync = series.get((POSTGRES, ASYNC)), series.get((SQLITE, SYNC))
    if sqlite and (times := sqlite.times(peer)):
        yield Verdict(SQLITE_TARGET, f"{times:.2f} times", times >= 2.5)
    if postgres and (times := postgres.times(peer)):
        yield Verdict(POSTGRES_TARGET, f"{times:.2f} times", times >= 1.5)
    if peer and sqlite:
        ours, theirs = (one.median(lambda round: round.p99) for one in (sqlite, peer))
        yield Verdict(P99_TARGET, f"{ours:.1f} ms, the peer's {theirs:.1f} ms", ours < theirs)
    if sqlite and (times := sqlite.times(sync)):
        yield Verdict(SYNC_TARGET, f"{times - 1:+.0%}", times <= 1.15)


def _doubts(series: dict[Entry, Series]) -> Iterator[str]:
    yield from doubts({_name(entry): one for entry, one in series.items()})
    ceiling = series.get((CEILING, ASYNC))
    fastest = max((one.speed for (side, _), one in series.items() if side != CEILING), default=0.0)
    if ceiling and ceiling.speed < ABOVE * fastest:
        yield f"the ceiling is only {ceiling.speed / fastest:.2f} times the fastest: the server sets the pace"


def _name(entry: Entry) -> str:
    side, form = entry
    return NAMES[side] if form == ASYNC else f"{NAMES[side]}, {form}"
