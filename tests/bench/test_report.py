"""The page is generated from what was measured, and from nothing else."""

from pathlib import Path

import msgspec

from bench import report
from bench.outcome import Grid, Outcome, Verdict
from bench.registry import TABLES
from bench.report import Run
from bench.tables.throughput import SQLITE_TARGET

OUTCOME = Outcome([Grid(("", "webhooks/s"), [("SQLite", 1234)])], [Verdict(SQLITE_TARGET, "2.60 times", True)], [])


def run(outcome: Outcome = OUTCOME) -> Run:
    return Run("2026-01-02", "abc1234", ["2 cores"], "Python 3", "server on core 0", 61.2, {"rounds": 5}, outcome)


def test_the_page_in_the_repository_is_the_one_that_the_figures_make() -> None:
    assert report.PAGE.read_text(encoding="utf-8") == report.render(report.load())


def test_the_page_names_every_table_and_target_and_says_what_was_not_measured() -> None:
    page = report.render({1: run()})
    assert f"| {SQLITE_TARGET} | 2.60 times | met | 1 |" in page
    assert "2026-01-02, commit abc1234, took 61 s" in page
    for number, table in TABLES.items():
        assert f"## {number}. {table.title}\n" in page
        for target in table.targets:
            assert target == SQLITE_TARGET or f"| {target} | not measured yet |  | {number} |" in page
    assert page.count("Not run yet.") == len(TABLES) - 1


def test_a_target_that_is_missed_is_said_to_be() -> None:
    missed = msgspec.structs.replace(OUTCOME, verdicts=[Verdict(SQLITE_TARGET, "1.10 times", False)])
    assert f"| {SQLITE_TARGET} | 1.10 times | **not met** | 1 |" in report.render({1: run(missed)})


def test_what_was_wrong_stands_with_the_figures() -> None:
    page = report.render({1: run(msgspec.structs.replace(OUTCOME, problems=["peer: no\nnode"], doubts=["busy"]))})
    assert "What was wrong:\n\n- peer: no node\n" in page
    assert "To be taken with care:\n\n- busy\n" in page


def test_what_was_tried_is_the_page_s_last_section_as_it_was_written_by_hand() -> None:
    assert report.render({}, "\n## What was tried\n\nThis.\n").endswith("\n## What was tried\n\nThis.\n")
    assert report.render({}).endswith(report.TRIED.read_text(encoding="utf-8"))


def test_a_table_keeps_its_last_figures_when_another_is_run(tmp_path: Path) -> None:
    kept, page = tmp_path / "figures.json", tmp_path / "page.md"
    report.save({2: run(), 1: run()}, kept, page)
    later = msgspec.structs.replace(OUTCOME, grids=[Grid(("", "webhooks/s"), [("SQLite", 5678)])])
    report.save(report.load(kept) | {1: run(later)}, kept, page)
    runs = report.load(kept)
    assert [list(runs[number].outcome.grids[0].rows[0]) for number in runs] == [["SQLite", 5678], ["SQLite", 1234]]
    assert "| SQLite | 5,678 |" in page.read_text(encoding="utf-8")
