"""What `.ci/run` runs again from a closed folder: all on PostgreSQL but doses, and the quicker half if asked for."""

from scripts.second_run import second_run

REPORT = """<testsuites><testsuite name="pytest">
<testcase classname="tests.store.test_add" name="test_it[sqlite]" time="0.1"/>
<testcase classname="tests.store.test_add" name="test_it[postgresql]" time="9.0"/>
<testcase classname="tests.store.postgres.test_locks" name="test_a_lock" time="8.0"/>
<testcase classname="tests.reliability.test_rooms" name="test_a_dose[postgresql]" time="7.0"/>
<testcase classname="tests.reliability.test_postgres_server" name="test_it_ends" time="6.0"/>
<testcase classname="" name="tests.inspector.test_browser" time="0.0"><skipped message="no chromium"/></testcase>
<testcase classname="tests.test_quick" name="test_quick[a]" time="0.2"/>
<testcase classname="tests.test_slow" name="test_slow[a]" time="0.0"/>
<testcase classname="tests.test_slow" name="test_slow[b]" time="5.0"/>
</testsuite></testsuites>"""

ON_POSTGRES = [
    "tests/reliability/test_postgres_server.py::test_it_ends",
    "tests/store/postgres/test_locks.py::test_a_lock",
    "tests/store/test_add.py::test_it",
]


def test_what_is_tested_on_postgresql_runs_again_but_for_doses() -> None:
    assert second_run(REPORT, quick_half=False) == ON_POSTGRES


def test_half_of_the_functions_run_again_by_the_slowest_test_of_each() -> None:
    quick_half = {"tests/test_quick.py::test_quick", "tests/test_slow.py::test_slow"}
    # The third of six is on PostgreSQL anyway.
    assert set(second_run(REPORT, quick_half=True)) == {*ON_POSTGRES, *quick_half}
