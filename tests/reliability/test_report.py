"""The report is generated from what was measured, and from nothing else."""

from pathlib import Path

from reliability import report
from reliability.registry import ROWS
from reliability.report import Run


def run(**fields: object) -> Run:
    values = {"date": "2026-01-02", "commit": "abc1234", "machine": "Linux", "seconds": 61.2}
    return Run(**(values | {"figures": {"kills": 1000, "lost": 0}, "problems": []} | fields))  # type: ignore[arg-type]


def test_the_page_in_the_repository_is_the_one_that_the_figures_make() -> None:
    assert report.PAGE.read_text(encoding="utf-8") == report.render(report.load())


def test_the_page_names_every_row_and_says_which_was_not_run() -> None:
    page = report.render({1: {"sqlite": run()}})
    assert f"| 1 | {ROWS[1].fault} | sqlite | passed | 2026-01-02 | abc1234 |" in page
    for number, row in ROWS.items():
        assert number == 1 or f"| {number} | {row.fault} | {row.kinds[0]} | not run yet | | |" in page


def test_a_row_keeps_its_last_figures_when_another_is_run(tmp_path: Path) -> None:
    kept, page = tmp_path / "figures.json", tmp_path / "page.md"
    report.save({2: {"sqlite": run()}, 1: {"sqlite": run(figures={"kills": 1234})}}, kept, page)
    runs = report.load(kept)
    runs[1]["sqlite"] = run(figures={"kills": 5678})
    report.save(runs, kept, page)
    assert "1,234" not in page.read_text(encoding="utf-8")
    assert "| kills | 5,678 |" in page.read_text(encoding="utf-8")
    assert "| kills | 1,000 |" in page.read_text(encoding="utf-8")
    assert list(report.load(kept)) == [1, 2]


def test_a_row_that_failed_says_so_and_what_was_wrong() -> None:
    page = report.render({1: {"sqlite": run(problems=["3 acknowledged, but not stored"])}})
    assert "**failed**" in page
    assert "- 3 acknowledged, but not stored" in page
