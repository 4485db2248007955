"""Table 1: how many webhooks per second one core can process, against the peers and the server alone."""

from collections.abc import Iterator
from typing import Literal, get_args

from msgspec import Struct

from bench.bodies import bodies
from bench.outcome import Grid, Outcome, Problems, Verdict
from bench.rounds import LATENCIES, SPEED, Ring, Series, doubts, trust
from bench.sides import CAREFUL, CEILING, NAMES, PEER, POSTGRES, SIDES, SQLITE, Setting, Side

EXPRESS_TIMES = 1.5
CAREFUL_TIMES = 6.0
POSTGRES_TIMES = 1.6
CPU_AT_MOST = 80

SQLITE_TARGET = f"As it comes, on SQLite: at least {EXPRESS_TIMES:g} times Express, which verifies and stores nothing"
CAREFUL_TARGET = f"As it comes, on SQLite: at least {CAREFUL_TIMES:g} times the careful peer"
POSTGRES_TARGET = f"As it comes, on PostgreSQL: at least {POSTGRES_TIMES:g} times Express"
CPU_TARGET = f"CPU time of a webhook on SQLite at most {CPU_AT_MOST} µs"
P99_TARGET = "p99 under load on SQLite below both peers'"
SYNC_TARGET = "A sync lambda and a sync listener cost at most 15 % more than async ones"
PRESENCE_TARGETS: dict[Side, str] = {
    side: f"A predicate that asks who is in the room, on {NAMES[side]}: at most 5 % less throughput"
    for side in (SQLITE, POSTGRES)
}
TARGETS = (
    *(SQLITE_TARGET, CAREFUL_TARGET, POSTGRES_TARGET, CPU_TARGET, P99_TARGET, SYNC_TARGET),
    *PRESENCE_TARGETS.values(),
)

Form = Literal["default", "sync", "presence", "quiet"]
"""How the trigger runs: as it comes, with coroutines and its log; with plain functions; asking who is in the room; or
without its log.
"""

DEFAULT, SYNC, PRESENCE, QUIET = FORMS = get_args(Form)
OPTIONS = {DEFAULT: (), SYNC: ("--form", "sync"), PRESENCE: ("--form", "presence"), QUIET: ("--quiet",)}
"""The options of `programs.receiver` for each form."""

CAREFUL_SHARE = 5
"""The careful peer gets one webhook for this many of the others: it syncs each one, which is slow."""

ABOVE = 1.5
"""The least ratio of the ceiling to the fastest side: below it, mostly the server is measured."""


class Dose(Struct, frozen=True):
    """Hold how much to measure; by default what the page reports."""

    webhooks: int = 200_000
    rounds: int = 5
    connections: int = 64
    sides: tuple[Side, ...] = SIDES
    forms: tuple[Form, ...] = FORMS


Entry = tuple[str, str]
"""A side and a form."""


async def run(setting: Setting, dose: Dose) -> Outcome:
    """Measure every side in turn, once per round."""
    series: dict[Entry, Series] = {}
    problems = Problems()
    ring = Ring(setting, bodies())
    for number in range(dose.rounds):
        for side, form in entries(dose):
            with problems.of(_name((side, form))):
                async with setting.up(side, options=OPTIONS[form]) as server:
                    webhooks = dose.webhooks // CAREFUL_SHARE if side == CAREFUL else dose.webhooks
                    measured = await ring.round([server], webhooks, dose.connections)
                series.setdefault((side, form), Series()).add(number, measured)
    return Outcome(_grids(series), list(_verdicts(series)), problems.all, list(_doubts(series)))


def entries(dose: Dose) -> Iterator[Entry]:
    """Return each side and form to measure: the ceiling and the peers have one, the log is the same on both stores."""
    for form in dose.forms:
        for side in dose.sides:
            if form == DEFAULT or (form in (SYNC, PRESENCE) and side in (SQLITE, POSTGRES)) or side == SQLITE:
                yield side, form


def _grids(series: dict[Entry, Series]) -> list[Grid]:
    peer, careful = series.get((PEER, DEFAULT)), series.get((CAREFUL, DEFAULT))
    ours_first = sorted(series, key=lambda entry: (entry[1] != DEFAULT, entry[0] not in (SQLITE, POSTGRES)))
    figures = [
        [_name(entry), *one.speeds(), one.ratio_to(peer), one.ratio_to(careful), *one.latencies()]
        for entry in ours_first
        for one in (series[entry],)
    ]
    columns = ("", *SPEED, "× Express", "× careful peer", *LATENCIES)
    return [Grid(columns, figures), trust({_name(entry): series[entry] for entry in ours_first})]


def _verdicts(series: dict[Entry, Series]) -> Iterator[Verdict]:
    peer, careful = series.get((PEER, DEFAULT)), series.get((CAREFUL, DEFAULT))
    sqlite, postgres = series.get((SQLITE, DEFAULT)), series.get((POSTGRES, DEFAULT))
    sync = series.get((SQLITE, SYNC))
    if sqlite and (times := sqlite.times(peer)):
        yield Verdict(SQLITE_TARGET, f"{times:.2f} times", times >= EXPRESS_TIMES)
    if sqlite and (times := sqlite.times(careful)):
        yield Verdict(CAREFUL_TARGET, f"{times:.2f} times", times >= CAREFUL_TIMES)
    if postgres and (times := postgres.times(peer)):
        yield Verdict(POSTGRES_TARGET, f"{times:.2f} times", times >= POSTGRES_TIMES)
    if sqlite and peer:
        cpu = sqlite.median(lambda round: round.server_cpu)
        yield Verdict(CPU_TARGET, f"{cpu:.0f} µs", cpu <= CPU_AT_MOST)
    if sqlite and (peers := [one for one in (peer, careful) if one]):
        ours, *theirs = (one.median(lambda round: round.p99) for one in (sqlite, *peers))
        shown = " and ".join(f"{one:.1f}" for one in theirs)
        yield Verdict(P99_TARGET, f"{ours:.1f} ms, theirs {shown} ms", ours < min(theirs))
    if sqlite and (times := sqlite.times(sync)):
        yield Verdict(SYNC_TARGET, f"{times - 1:+.0%}", times <= 1.15)
    for side, target in PRESENCE_TARGETS.items():
        without = series.get((side, DEFAULT))
        if without and (times := without.times(series.get((side, PRESENCE)))):
            yield Verdict(target, f"{1 / times - 1:+.0%}", times <= 1.05)


def _doubts(series: dict[Entry, Series]) -> Iterator[str]:
    yield from doubts({_name(entry): one for entry, one in series.items()})
    ceiling = series.get((CEILING, DEFAULT))
    fastest = max((one.speed for (side, _), one in series.items() if side != CEILING), default=0.0)
    if ceiling and ceiling.speed < ABOVE * fastest:
        yield f"the ceiling is only {ceiling.speed / fastest:.2f} times the fastest: the server sets the pace"


def _name(entry: Entry) -> str:
    side, form = entry
    return NAMES[side] if form == DEFAULT else f"{NAMES[side]}, {form}"
