"""SQL for SQLite names its values or marks them by order only."""

import re
from pathlib import Path

import pytest

from whereby_trigger.store import sqlite

SOURCES = sorted(Path(sqlite.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_no_statement_numbers_its_values_since_some_versions_of_python_warn_of_that(source: Path) -> None:
    assert not re.findall(r"\?\d", source.read_text())
