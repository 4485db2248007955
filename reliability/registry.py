"""The rows, each with its dose for `make reliability` and its condition."""

from reliability.row import Row, on_both, on_postgresql, on_sqlite, once
from reliability.rows import (
    bad_network,
    bodies,
    database,
    disk_full,
    drains,
    following_meetings,
    frozen_replicas,
    held_webhooks,
    journal_lost,
    killed_commands,
    killed_replicas,
    kills,
    many_rooms,
    poison,
    power_loss,
    shortages,
    skewed_clocks,
    steady_load,
    strangers,
    suite,
    ten_minutes,
    unread_logs,
    unsafe_settings,
)

MINUTE, DAY = 60.0, 86_400.0

ROWS: dict[int, Row] = {
    1: Row(
        "The receiver is killed with -9 at a random point, under load",
        "0 lost, 0 decided twice; at least 100,000 acknowledged",
        kills.run,
        on_sqlite(kills=1000, acknowledged_per_life=130, at_least=100_000)
        | on_postgresql(kills=300, acknowledged_per_life=400, at_least=100_000),
    ),
    2: Row(
        "The receiver is killed before and after each insert, commit, answer, emit, decision, takeover and blame",
        "0 lost, 0 decided twice; parked is what three deaths were blamed on: stored as failed, with that reason",
        kills.run_at_boundaries,
        on_both(deaths=50),
    ),
    3: Row(
        "Power loss, told from a trace of the system calls",
        "every 200 after the sync of its webhook; after each cut 0 acknowledged missing and integrity_check ok",
        power_loss.run,
        on_sqlite(acknowledged=2000, cuts=200),
    ),
    4: Row("Unsafe configuration", "refused, with the reason", unsafe_settings.run, on_both()),
    5: Row(
        "A steady load of 500 deliveries a second, a tenth of them duplicates, and a burst of 2,000 in one second",
        "p99 under 250 ms, no answer after 2 s, no 5xx",
        steady_load.run,
        on_both(rate=500, seconds=10 * MINUTE, burst=2000),
    ),
    6: Row(
        "50 deliveries a second for half an hour, to a store that holds a million webhooks",
        "the p99 drifts by less than 20 %, the memory grows by less than 10 %",
        steady_load.run_soak,
        on_both(inbox=1_000_000, rate=50, seconds=30 * MINUTE),
    ),
    7: Row(
        "PostgreSQL is killed with -9 and started again, under load",
        "0 acknowledged lost; 0 sent lost, where it was away for less than 10 s",
        database.run_killed,
        on_postgresql(restarts=100, rate=100, down_for=6.0),
    ),
    8: Row(
        "PostgreSQL is away for 10, 60 and 120 s, killed or frozen, while assistants are alive",
        "10 s: nothing stops; longer: out before the lease's end, 0 overlaps, all back after it; a spill is drained",
        database.run_away,
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
        suite.pooled,
        on_postgresql(),
    ),
    11: Row(
        "Three replicas, and each event reaches all of them at once",
        "1 row each; 1 assistant in each room",
        many_rooms.run_everybody,
        on_both(events=10_000, rooms=200),
    ),
    12: Row(
        "A replica with 20 assistants is killed with -9",
        "all restarted within 2 s on SQLite, the lease (6 s here) and 1 s on PostgreSQL; 0 overlaps",
        killed_replicas.run,
        on_sqlite(kills=200, assistants=20, bound=2.0) | on_postgresql(kills=200, assistants=20, bound=7.0, lease=6.0),
    ),
    13: Row(
        "A replica is frozen past its lease: the supervisor alone, and with its children",
        "supervisor alone: 0 overlaps; all frozen: at most one tick of each",
        frozen_replicas.run,
        on_both(freezes=100),
    ),
    14: Row(
        "The supervisor dies or freezes; its child, also behind sh and npm start, lives",
        "the guard has ended the whole group by the deadline",
        frozen_replicas.run_orphans,
        on_both(doses=100),
    ),
    15: Row(
        "Clocks that are wrong by 10 minutes and by a day, from the start and by a jump",
        "leases are unaffected, 0 overlaps; stale signatures are refused and counted",
        skewed_clocks.run,
        on_both(offsets=(-10 * MINUTE, 10 * MINUTE, -DAY, DAY)),
    ),
    16: Row(
        "Rolling deploys at 20 deliveries a second; drains with user code that blocks",
        "0 lost; hand-over within 2 s; the drain keeps its deadline",
        drains.run_deploys,
        on_both(deploys=50, blocking_deploys=5),
    ),
    17: Row(
        "Poison: assistants that raise, refuse, exit and hang; predicates that raise, hang, exit and answer nothing",
        "capped backoff, parked, others unaffected",
        poison.run,
        on_both(doses=1000),
    ),
    18: Row(
        "The disk is full",
        "503, never 200; recovers unaided",
        disk_full.run,
        on_sqlite(doses=100, on_a_small_disk=20),
    ),
    19: Row(
        "Slow sockets: a byte a second, or none",
        "good traffic p99 under 500 ms; the slow ones closed within 10 s",
        strangers.run_slow,
        on_both(sockets=1000),
    ),
    20: Row(
        "Bodies: one byte below the limit, at it, above it, 100 MiB, in chunks without a length, of false lengths",
        "413 without buffering, RSS + less than 8 MiB, nothing refused is stored",
        bodies.run,
        on_both(),
    ),
    21: Row(
        "Signatures: forged, stale, from the future, replayed, rotated, mutated",
        "0 bad accepted, 0 answers of 500",
        suite.run,
        once(tests=("tests/webhook/test_signature.py",), dose={"mutations": 100_000}),
    ),
    22: Row(
        "The grammar of the signature's header",
        "accepted and refused as the grammar says",
        suite.run,
        once(tests=("tests/webhook/test_header_grammar.py",), dose={}),
    ),
    23: Row(
        "JSON that is no webhook, or an odd one",
        "no 500; the verdict of the table",
        suite.run,
        once(tests=("tests/webhook/test_json_verdicts.py", "tests/promise/test_json_verdicts.py"), dose={}),
    ),
    24: Row(
        "A state machine over webhooks, rooms and leases: deliver, duplicate, reorder, crash, expire, freeze, drain",
        "refines the model",
        suite.run,
        once(
            tests=("tests/store/test_model.py",),
            dose={"runs": 2000, "steps": 50},
            env={"MODEL_EXAMPLES": "2000", "MODEL_STEPS": "50"},
        ),
    ),
    25: Row(
        "Mutations of our own code",
        "every one is caught by a test of the suite",
        suite.mutate,
        once(),
    ),
    26: Row(
        "A thousand rooms begin and end in one process that serves 200 at a time (a row of our own)",
        "no task, file descriptor or memory of them stays",
        many_rooms.run,
        on_both(rooms=1000),
    ),
    27: Row(
        "A replica is killed before and after each claim, take, spawn and record of a room (row 2 for rooms)",
        "0 lost, 0 overlaps, every room served",
        killed_replicas.run_at_boundaries,
        on_both(deaths=50),
    ),
    28: Row(
        "Three replicas at 100 deliveries a second; one is killed every 20 s, the database restarted every minute "
        "(a row of our own)",
        "0 acknowledged lost, 0 decided twice, 0 overlaps, every room served",
        ten_minutes.run,
        on_postgresql(seconds=10 * MINUTE, rate=100, kill_every=20.0, restart_every=MINUTE, lease=30.0),
    ),
    29: Row(
        "The log's reader stalls, closes or takes a line a second, or stderr is closed from the start; with assistants",
        "every answer 200, p99 as without; SIGTERM and the watchdog in time; 0 overlaps; dropped lines counted",
        unread_logs.run,
        on_both(doses=100, rate=500, seconds=10.0, side_by_side=3),
    ),
    30: Row(
        "A replica is killed with -9, every other time with its guards, and started again at once; its assistants take "
        "0 to 9 s to leave, and each has a helper in a session of its own",
        "0 overlaps; served again at most 2 s after the last has left, on PostgreSQL the lease (6 s here) and 1 s",
        killed_replicas.run_slow_leavers,
        on_sqlite(kills=200, assistants=4) | on_postgresql(kills=200, assistants=4, lease=6.0),
    ),
    31: Row(
        "Beside the store's file the log, its index or the locks are removed or replaced; the file gets a second name, "
        "or is copied in the process",
        "0 acknowledged lost; integrity_check ok; 503, or a refusal at the start, while there is a second name",
        journal_lost.run,
        on_sqlite(doses=50),
    ),
    32: Row(
        "PostgreSQL read-only for 1 to 60 s; a standby behind its address; a row, a table locked by others; "
        "synchronous_commit turned off by a reload, and then a crash",
        "0 acknowledged lost; back within 5 s after it is over; one locked row holds up that row alone",
        database.run_changed,
        on_postgresql(doses=50, longest=MINUTE, rate=20),
    ),
    33: Row(
        "A replica is out of threads, files or memory for 1 to 30 s, while it starts assistants, decides or reconnects",
        "/readyz tells; nothing is failed for good and no restart used up by it; back within 5 s after it",
        shortages.run,
        on_both(doses=100, shortest=1.0, longest=30.0, side_by_side=7),
    ),
    34: Row(
        "Assistants and predicates hold every thread of the event loop's default executor in a drain",
        "the drain keeps its deadline; the exit code is 0",
        drains.run_full_executors,
        on_both(drains=100, side_by_side=5),
    ),
    35: Row(
        "Clients without a signature: requests sent ahead, answers not taken, bodies not sent, in tiny chunks or where "
        "none belongs, silent sockets",
        "RSS + less than 24 MiB; signed traffic p99 under 500 ms, all of it answered 200",
        strangers.run_crowds,
        on_both(sockets=20_000, seconds=600.0),
    ),
    36: Row(
        "Meetings follow each other in a room: ends are lost, late and doubled, joins and starts late and doubled; "
        "three replicas, of which one is killed every 20 s",
        "every newest meeting served; every slot back after its end; 0 overlaps",
        following_meetings.run,
        on_sqlite(series_of_meetings=2000, at_a_time=10, kill_every=20.0)
        | on_postgresql(series_of_meetings=2000, at_a_time=10, kill_every=20.0, lease=6.0),
    ),
    37: Row(
        "Three replicas hold webhooks; one after the other is killed with -9, or drained, and another takes its place",
        "each fires once; at most 1 s late on a living replica, 2 s after a death on SQLite, the lease (3 s here) and "
        "1 s on PostgreSQL",
        held_webhooks.run,
        on_sqlite(webhooks=10_000, deaths=100, hold=5.0, bound=2.0, lease=30.0)
        | on_postgresql(webhooks=10_000, deaths=100, hold=5.0, bound=4.0, lease=3.0),
    ),
    38: Row(
        "`forget`, `db prune` and `events export` are killed with -9 before, during and after each statement",
        "the next call exits with 0; then nothing of the person is in any file, an export is whole, and what is stored "
        "of others is as it was",
        killed_commands.run,
        on_both(kills=200),
    ),
}
