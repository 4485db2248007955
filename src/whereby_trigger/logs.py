"""How log records look when we are the program: plain lines on a terminal, JSON objects elsewhere."""

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
"""Characters that a delivery's line is taken for before it is made."""

GREEN, YELLOW, RED, DIM = "32", "33", "31", "2"
COLOURS = {"fired": GREEN, "notified": GREEN, "failed": RED, "quarantined": RED}


class PlainFormatter(logging.Formatter):
    """Format a record as a line for a person, coloured by what became of a delivery if that is wanted."""

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
    """Format a record as one JSON object a line; a delivery's fields stand beside time, level and logger."""

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
    """Hand each record's line to a writer that has a thread of its own: to log never waits for the log's reader."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer
        writer.note = self._note

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if record.name == DELIVERIES:
                # What its line is made of never changes, so that the thread can make it.
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
    """Send our log to a stream, standard error by default, unless the program has configured logging itself."""
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
    """Give the exception and the stack that an assistant logged: what is in them is for its author to say.

    Of any other line they are left out, since they may hold what a webhook or a function of the user's holds.
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
