"""A test run that left out PostgreSQL does not pass."""

from scripts.postgres_tests import complaints

REPORT = '<testsuites><testsuite name="pytest">{}</testsuite></testsuites>'
RAN = '<testcase classname="tests.store.test_add" name="test_it[postgresql]"/>'
SKIPPED = '<testcase classname="{}" name="{}"><skipped type="pytest.skip" message="{}"/></testcase>'


def test_a_run_with_nothing_skipped_passes() -> None:
    assert complaints(REPORT.format(RAN)) == []


def test_a_skip_for_another_reason_passes() -> None:
    assert complaints(REPORT.format(RAN + SKIPPED.format("tests.assist", "test_npm", "npm is not installed"))) == []


def test_a_skipped_test_of_postgresql_is_named_with_its_reason() -> None:
    skipped = SKIPPED.format("tests.store.test_add", "test_that[postgresql]", "no wheel")
    assert complaints(REPORT.format(RAN + skipped)) == [
        "tests.store.test_add.test_that[postgresql] was skipped: no wheel"
    ]


def test_a_skip_that_only_its_reason_betrays_is_named() -> None:
    skipped = SKIPPED.format("", "tests.store.test_add", "PostgreSQL is missing")
    assert complaints(REPORT.format(RAN + skipped)) == [".tests.store.test_add was skipped: PostgreSQL is missing"]


def test_a_skip_for_another_program_that_is_missing_passes() -> None:
    skipped = SKIPPED.format("tests.spill.test_on_postgres", "test_it", "strace is not installed: it reads a trace")
    assert complaints(REPORT.format(RAN + skipped)) == []


def test_a_skip_since_postgresql_is_missing_is_named() -> None:
    skipped = SKIPPED.format("tests.store.test_add", "test_it", "PostgreSQL is not installed")
    assert len(complaints(REPORT.format(RAN + skipped))) == 1


def test_a_run_without_any_test_on_postgresql_does_not_pass() -> None:
    assert complaints(REPORT.format("")) == ["no test ran on PostgreSQL"]
