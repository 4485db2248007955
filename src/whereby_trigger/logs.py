"""Log formatting for the command line's programs: plain lines on a terminal, JSON objects elsewhere."""

import json
import logging
import sys
from datetime import UTC, datetime
from functools import partial
from typing import Any, TextIO

from whereby_trigger.config import wants_colour
from whereby_trigger.stderr import LineWriter, in_words, writer_of
from whereby_trigger.text import printable

ROOT = "whereby_trigger"
SERVER = "uvicorn"
ASSISTANT = "whereby_trigger.assistant"
DELIVERIES = "whereby_trigger.deliveries"

DELIVERY_SIZE = 512
"""Characters that a delivery's line counts as before it is formatted."""

GREEN, YELLOW, RED, DIM = "32", "33", "31", "2"
COLOURS = {"fired": GREEN, "notified": GREEN, "failed": RED, "quarantined": RED}


class PlainFormatter(logging.Formatter):
    """Format a record as a line for a person; if `coloured`, by a delivery's decision or the record's level."""

    def __init__(self, *, coloured: bool = False) -> None:
        super().__init__()
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S")
        delivery = getattr(record, "delivery", None)
        plain = delivery is not None or record.levelno <= logging.INFO
        mark = "" if plain else f"{record.levelname.lower()}: "
        text = "\n".join([record.getMessage(), *_traced(self, record).values()])
        shown = printable(text, keep="\n")
        line = f"{clock} {mark}{shown}"
        colour = _colour_of(record, delivery) if self._coloured else None
        return line if colour is None else f"\x1b[{colour}m{line}\x1b[0m"


class JsonFormatter(logging.Formatter):
    """Format a record as one JSON object a line, with a delivery's fields beside time, level and logger."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        delivery = getattr(record, "delivery", None)
        fields |= {"message": record.getMessage()} if delivery is None else delivery
        fields |= _traced(self, record)
        return json.dumps(fields)


class QueueingHandler(logging.Handler):
    """Pass each record's line to a writer with a thread of its own: logging never waits for the log's reader."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer
        writer.note = self._note

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if record.name == DELIVERIES:
                # A delivery's record never changes, so the thread can format it.
                self._writer.put(partial(self._line, record), DELIVERY_SIZE)
            else:
                line = self._line(record)
                self._writer.put(line, len(line))
        except RecursionError:
            raise
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Wait until what was logged is written, at most a second."""
        self._writer.flush()

    def _line(self, record: logging.LogRecord) -> str:
        return self.format(record) + "\n"

    def _note(self, dropped: int) -> str:
        return self._line(logging.LogRecord(ROOT, logging.WARNING, __file__, 0, in_words(dropped), None, None))


def configure(stream: TextIO | None = None) -> None:
    """Send our log to a stream, by default standard error, unless the program has configured logging itself."""
    root = logging.getLogger(ROOT)
    if root.handlers or logging.getLogger().handlers:
        return
    stream = stream or sys.stderr
    handler = QueueingHandler(writer_of(stream))
    on_terminal = stream is not None and stream.isatty()
    handler.setFormatter(PlainFormatter(coloured=wants_colour()) if on_terminal else JsonFormatter())
    root.setLevel(logging.INFO)
    for logger in (root, logging.getLogger(SERVER)):
        logger.addHandler(handler)
        logger.propagate = False


def _traced(formatter: logging.Formatter, record: logging.LogRecord) -> dict[str, str]:
    """Return the exception and the stack that an assistant logged: its author decides what they contain.

    Any other record's are left out, since they may hold values from a webhook or from the user's code.
    """
    if record.name != ASSISTANT and not record.name.startswith(f"{ASSISTANT}."):
        return {}
    exception = formatter.formatException(record.exc_info) if record.exc_info else record.exc_text
    stack = formatter.formatStack(record.stack_info) if record.stack_info else None
    return {name: text for name, text in (("exception", exception), ("stack", stack)) if text}


def _colour_of(record: logging.LogRecord, delivery: dict[str, Any] | None) -> str | None:
    if delivery is None:
        return YELLOW if record.levelno > logging.INFO else None
    return COLOURS.get(delivery["decision"], DIM if delivery["answer"] == 200 else YELLOW)
