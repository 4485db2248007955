"""The loggers of this package: what a program's handlers and filters raise is told, and goes no further.

A handler that sends its records to a service may fail when that is away, perhaps together with the database. Our code
logs in the middle of what it must do: a delivery, a lease, the end of an assistant.
"""

import contextlib
import logging
from functools import partial
from typing import Final

UNFILTERED: Final = logging.NullHandler()
"""Says on standard error what was raised, as logging does with what a well-behaved handler raises."""


def own_logger(name: str) -> logging.Logger:
    """Return one of our loggers, by its name."""
    logger = logging.getLogger(name)
    if "handle" not in logger.__dict__:
        # No class of ours: a program may have set its own for all loggers.
        setattr(logger, "handle", partial(_handle, logger))  # noqa: B010 - its types do not allow a plain assignment
    return logger


def _handle(logger: logging.Logger, record: logging.LogRecord) -> None:
    try:
        type(logger).handle(logger, record)
    except Exception:
        with contextlib.suppress(Exception):
            UNFILTERED.handleError(record)
