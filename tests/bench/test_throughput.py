"""Table 1 in a tiny dose: every side is measured, and a round that lost something does not count."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import pytest

from bench import rounds
from bench.bodies import Body, Requests, bodies, write_requests
from bench.load import Generator, Load, LoadFailed, closed_loop, wrk
from bench.outcome import Outcome
from bench.programs.receiver import TOLERANCE
from bench.rounds import Ring
from bench.sides import CAREFUL, CEILING, NAMES, PEER, PEERS, POSTGRES, SQLITE, Setting, Side, is_installed
from bench.tables import throughput
from bench.tables.throughput import Dose
from tests.support.tools import skip_without

pytestmark = pytest.mark.anyio

TINY = Dose(webhooks=60, rounds=1, connections=4)


def speeds(outcome: Outcome) -> dict[str, float]:
    """Return the webhooks per second of each side that was measured."""
    assert outcome.problems == []
    return {str(row[0]): float(str(row[1])) for row in outcome.grids[0].rows}


@pytest.mark.parametrize("store", [SQLITE, POSTGRES])
async def test_a_store_and_the_ceiling_are_measured_with_nothing_but_python(setting: Setting, store: str) -> None:
    dose = msgspec.structs.replace(TINY, sides=(store, CEILING), forms=("default", "sync"))
    measured = speeds(await throughput.run(setting, dose))
    assert measured.keys() == {NAMES[store], NAMES[CEILING], f"{NAMES[store]}, sync"}
    assert all(speed > 0 for speed in measured.values())


async def test_what_the_log_costs_is_measured(setting: Setting) -> None:
    dose = msgspec.structs.replace(TINY, sides=(SQLITE,), forms=("quiet",))
    assert speeds(await throughput.run(setting, dose)).keys() == {f"{NAMES[SQLITE]}, quiet"}


@pytest.mark.parametrize("store", [SQLITE, POSTGRES])
async def test_what_it_costs_to_ask_who_is_there_is_judged_on_each_store(setting: Setting, store: Side) -> None:
    dose = msgspec.structs.replace(TINY, sides=(store,), forms=("default", "presence"))
    outcome = await throughput.run(setting, dose)
    assert throughput.PRESENCE_TARGETS[store] in {verdict.target for verdict in outcome.verdicts}


async def test_the_peer_is_measured(setting: Setting) -> None:
    skip_without("node", "npm")
    dose = msgspec.structs.replace(TINY, sides=(PEER, SQLITE), forms=("default",))
    outcome = await throughput.run(setting, dose)
    assert speeds(outcome).keys() == {NAMES[PEER], NAMES[SQLITE]}
    targets = {throughput.SQLITE_TARGET, throughput.CPU_TARGET, throughput.P99_TARGET}
    assert {verdict.target for verdict in outcome.verdicts} == targets


async def test_the_careful_peer_keeps_what_it_promises(setting: Setting) -> None:
    skip_without("node")
    if not is_installed(PEERS[CAREFUL]):
        pytest.skip("better-sqlite3 is not built here: `make bench TABLES=1` builds it")
    dose = msgspec.structs.replace(TINY, webhooks=60 * throughput.CAREFUL_SHARE, sides=(CAREFUL,), forms=("default",))
    assert speeds(await throughput.run(setting, dose)).keys() == {NAMES[CAREFUL]}


async def test_wrk_sends_each_request_once_and_the_store_has_as_many(setting: Setting) -> None:
    skip_without("wrk")
    ring = Ring(Setting(setting.cores, setting.stores, wrk), bodies())
    async with setting.up(SQLITE) as server:
        assert (await ring.round([server], 300, connections=7)).per_second > 0


async def test_a_side_that_cannot_be_had_is_named_and_the_others_are_measured(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reliability.tools.shutil.which", lambda name: None)
    outcome = await throughput.run(setting, msgspec.structs.replace(TINY, sides=(PEER, CEILING), forms=("default",)))
    assert [row[0] for row in outcome.grids[0].rows] == [NAMES[CEILING]]
    (problem,) = outcome.problems
    assert "node is missing" in problem
    assert "apt-get install" in problem


@dataclass
class Careless:
    """A generator that reports some requests as answered although it never sent them."""

    kept_back: int

    async def __call__(self, port: int, requests: Requests, connections: int, core: int) -> Load:
        sent = msgspec.structs.replace(requests, count=requests.count - self.kept_back)
        sent.path.write_bytes(b"".join(requests.read()[: sent.count]))
        load = await closed_loop(port, sent, connections, core)
        return msgspec.structs.replace(load, requests=requests.count)


def repeated() -> Iterator[Body]:
    """Yield each webhook twice."""
    for body in bodies():
        yield from (body, body)


@pytest.mark.parametrize(
    ("generator", "source", "reason"),
    [
        (Careless(1), bodies(), "the listener was called 118 times"),
        (closed_loop, repeated(), "the listener was called 60 times"),
    ],
    ids=["never sent", "duplicates"],
)
async def test_a_round_with_fewer_webhooks_than_answers_does_not_count(
    setting: Setting, generator: Generator, source: Iterator[Body], reason: str
) -> None:
    ring = Ring(Setting(setting.cores, setting.stores, generator), source)
    async with setting.up(SQLITE) as server:
        with pytest.raises(LoadFailed, match=reason):
            await ring.round([server], 60, connections=4)


async def test_a_round_that_leaves_too_much_work_does_not_count(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "BACKLOG_WITHIN", -1.0)
    async with setting.up(SQLITE) as server:
        with pytest.raises(LoadFailed, match="s of work were left"):
            await Ring(setting, bodies()).round([server], 20, connections=2)


@pytest.mark.parametrize("generator", [closed_loop, wrk], ids=["Python", "wrk"])
async def test_a_load_that_is_refused_does_not_count(setting: Setting, generator: Generator) -> None:
    if generator is wrk:
        skip_without("wrk")
    async with setting.up(SQLITE) as server:
        stale = write_requests(server.folder / "requests", bodies(), 20, time.time() - 2 * TOLERANCE)
        with pytest.raises(LoadFailed):
            await generator(server.port, stale, 4, setting.cores.load)
