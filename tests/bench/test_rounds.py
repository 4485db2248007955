"""Rounds of a kind: the figures that represent them, and the warnings if they cannot be trusted."""

import msgspec

from bench.rounds import CHECKS, LATENCIES, SPEED, Round, Series, doubts

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
    for number, round in enumerate(rounds):
        gathered.add(number, round)
    return gathered


def test_the_median_stands_for_the_speed_and_the_worst_for_what_it_is_worth() -> None:
    fast, slow = (msgspec.structs.replace(GOOD, per_second=speed, backlog=0.9) for speed in (3000.0, 500.0))
    gathered = series(GOOD, fast, slow)
    assert gathered.speeds() == [1000, "500 to 3,000"]
    assert gathered.checks() == ["0.90", 100, None, "30%", "1%"]
    widths = len(gathered.speeds()), len(gathered.latencies()), len(gathered.checks())
    assert widths == (len(SPEED), len(LATENCIES), len(CHECKS))


def test_a_ratio_is_that_of_rounds_side_by_side_so_that_a_slow_while_counts_for_both() -> None:
    quick, slowed, slow = (msgspec.structs.replace(GOOD, per_second=speed) for speed in (3000.0, 600.0, 500.0))
    ours, theirs = series(quick, slowed, slowed), series(GOOD, GOOD, slow)
    assert ours.times(theirs) == 1.2
    assert ours.speed / theirs.speed == 0.6
    assert ours.ratio_to(theirs) == "1.20"
    assert ours.ratio_to(None) is None
    assert ours.times(Series()) is None


def test_rounds_that_failed_on_one_side_leave_the_others_side_by_side() -> None:
    ours, theirs = Series(), series(GOOD, GOOD)
    ours.add(1, msgspec.structs.replace(GOOD, per_second=2000.0))
    assert ours.times(theirs) == 2.0


def test_a_generator_at_its_limit_and_a_machine_that_is_not_quiet_are_named() -> None:
    busy, crowded = (msgspec.structs.replace(GOOD, **change) for change in ({"generator_busy": 0.95}, {"others": 0.5}))
    found = list(doubts({"good": series(GOOD), "busy": series(GOOD, busy), "crowded": series(crowded)}))
    assert [text.partition(":")[0] for text in found] == ["busy", "crowded"]
