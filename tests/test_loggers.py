"""What a handler or filter of the program raises reaches none of our code, wherever that logs."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import whereby_trigger
from whereby_trigger.loggers import own_logger

SRC = Path(whereby_trigger.__file__).parent
NAME = "whereby_trigger.test"


class Away(logging.Handler):
    """A handler whose service is away."""

    def emit(self, record: logging.LogRecord) -> None:
        raise ConnectionError("the log's service is away")


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    ours = own_logger(NAME)
    yield ours
    ours.handlers, ours.filters = [], []


def test_what_a_handler_raises_is_told_and_goes_no_further(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    logger.addHandler(Away())
    logger.warning("the lease was not renewed")
    told = capsys.readouterr().err
    assert "ConnectionError: the log's service is away" in told
    assert "the lease was not renewed" in told


def test_what_a_filter_raises_is_told_and_goes_no_further(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(record: logging.LogRecord) -> bool:
        raise TypeError("this filter wants a text")

    logger.addFilter(wrong)
    logger.warning("said")
    assert "TypeError: this filter wants a text" in capsys.readouterr().err


def test_a_handler_of_another_logger_above_ours_may_fail_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    root, handler = logging.getLogger(), Away()
    root.addHandler(handler)
    try:
        own_logger("whereby_trigger.decide").warning("a webhook waits")
    finally:
        root.removeHandler(handler)
    assert "ConnectionError" in capsys.readouterr().err


def test_a_record_names_the_line_that_logged_it(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    logger.warning("said")
    (record,) = [record for record in caplog.records if record.name == NAME]
    assert record.pathname == __file__


def test_every_module_of_ours_logs_by_such_a_logger() -> None:
    plain = re.compile(r"""getLogger\(["']whereby_trigger""")
    others = [path.name for path in SRC.rglob("*.py") if plain.search(path.read_text(encoding="utf-8"))]
    assert others == []
