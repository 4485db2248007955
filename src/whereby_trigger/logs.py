"""How log records look when we are the program: plain lines on a terminal, JSON objects elsewhere."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

ROOT = "whereby_trigger"


class PlainFormatter(logging.Formatter):
    """Format a record as a line for a person."""

    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S")
        mark = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        return f"{clock} {mark}{record.getMessage()}"


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
        return json.dumps(fields, ensure_ascii=False)


def configure(stream: TextIO | None = None) -> None:
    """Send our log to a stream, standard error by default, unless the program has configured logging itself."""
    root = logging.getLogger(ROOT)
    if root.handlers or logging.getLogger().handlers:
        return
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PlainFormatter() if stream.isatty() else JsonFormatter())
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    root.propagate = False
