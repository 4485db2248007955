"""Rounds of a kind: what stands for all of them, and what is said where they cannot be trusted."""

import msgspec

from bench.rounds import Round
from bench.series import CHECKS, LATENCIES, SPEED, Series, doubts

GOOD = Round(
    per_second=1000.0,
    p50=1.0,
    p99=2.0,
    slowest=3.0,
    backlog=0.1,
    server_cpu=100.0,
    database_cpu=0.0,
    generator_busy=0.3,
    database_busy=0.0,
    others=0.01,
)


def series(*rounds: Round) -> Series:
    gathered = Series()
    for round in rounds:
        gathered.add(round)
    return gathered


def test_the_median_stands_for_the_speed_and_the_worst_for_what_it_is_worth() -> None:
    fast, slow = (msgspec.structs.replace(GOOD, per_second=speed, backlog=0.9) for speed in (3000.0, 500.0))
    gathered = series(GOOD, fast, slow)
    assert gathered.speeds() == [1000, "500 to 3,000"]
    assert gathered.ratio_to(series(fast)) == "0.33"
    assert gathered.ratio_to(None) is None
    assert gathered.checks() == ["0.90", 100, None, "30%", "1%"]
    widths = len(gathered.speeds()), len(gathered.latencies()), len(gathered.checks())
    assert widths == (len(SPEED), len(LATENCIES), len(CHECKS))


def test_a_generator_at_its_limit_and_a_machine_that_is_not_quiet_are_named() -> None:
    busy, crowded = (msgspec.structs.replace(GOOD, **change) for change in ({"generator_busy": 0.95}, {"others": 0.5}))
    found = list(doubts({"good": series(GOOD), "busy": series(GOOD, busy), "crowded": series(crowded)}))
    assert [text.partition(":")[0] for text in found] == ["busy", "crowded"]
