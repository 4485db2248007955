"""The rows of load, and of a database, a network and clocks that fail."""

from reliability.row import Row, on_both, on_postgresql
from reliability.rows import (
    bad_network,
    database_away,
    database_changed,
    database_killed,
    pooled,
    skewed_clocks,
    soak,
    steady_load,
    ten_minutes,
)

MINUTE, DAY = 60.0, 86_400.0

OUTAGES: dict[int, Row] = {
    5: Row(
        "A steady load of 500 deliveries a second, a tenth of them duplicates, and a burst of 2,000 in one second",
        "p99 under 250 ms, no answer after 2 s, no 5xx",
        steady_load.run,
        on_both(rate=500, seconds=10 * MINUTE, burst=2000),
    ),
    6: Row(
        "50 deliveries a second for half an hour, to a store that holds a million webhooks",
        "the p99 drifts by less than 20 %, the memory grows by less than 10 %",
        soak.run,
        on_both(inbox=1_000_000, rate=50, seconds=30 * MINUTE),
    ),
    7: Row(
        "PostgreSQL is killed with -9 and started again, under load",
        "0 acknowledged lost; 0 sent lost, where it was away for less than 10 s",
        database_killed.run,
        on_postgresql(restarts=100, rate=100, down_for=6.0),
    ),
    8: Row(
        "PostgreSQL is away for 10, 60 and 120 s, killed or frozen, while assistants are alive",
        "10 s: nothing stops; longer: out before the lease's end, 0 overlaps, all back after it; a spill is drained",
        database_away.run,
        on_postgresql(short=(10.0,), long=(60.0, 120.0), doses=20, side_by_side=10, within=30.0),
    ),
    9: Row(
        "The network to the database is half-open, has a latency of 2 s, or resets a connection in mid-answer",
        "an answer in less than 4.8 s; all decided within 15 s of the network's return; 0 lost",
        bad_network.run,
        on_postgresql(doses=100, side_by_side=5),
    ),
    10: Row(
        "PgBouncer in transaction mode",
        "the conformance suite of stores passes, nothing skipped",
        pooled.run,
        on_postgresql(),
    ),
    15: Row(
        "Clocks that are wrong by 10 minutes and by a day, from the start and by a jump",
        "leases are unaffected, 0 overlaps; stale signatures are refused and counted",
        skewed_clocks.run,
        on_both(offsets=(-10 * MINUTE, 10 * MINUTE, -DAY, DAY)),
    ),
    28: Row(
        "Three replicas at 100 deliveries a second; one is killed every 20 s, the database restarted every minute "
        "(a row of our own)",
        "0 acknowledged lost, 0 decided twice, 0 overlaps, every room served",
        ten_minutes.run,
        on_postgresql(seconds=10 * MINUTE, rate=100, kill_every=20.0, restart_every=MINUTE, lease=30.0),
    ),
    32: Row(
        "PostgreSQL read-only for 1 to 60 s; a standby behind its address; a row, a table locked by others; "
        "synchronous_commit turned off by a reload, and then a crash",
        "0 acknowledged lost; back within 5 s after it is over; one locked row holds up that row alone",
        database_changed.run,
        on_postgresql(doses=50, longest=MINUTE, rate=20),
    ),
}
