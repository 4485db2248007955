"""Logging: what a record looks like, a handler that never waits for the log's reader, and `configure()`."""

import json
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Hashable
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache, partial
from types import TracebackType
from typing import Any, Final, Literal, TextIO

import msgspec

from whereby_trigger.config import wants_colour
from whereby_trigger.errors import ConfigError
from whereby_trigger.stderr import LineWriter, in_words, writer_of
from whereby_trigger.text import printable

ROOT = "whereby_trigger"
SERVER = "uvicorn"
ASSISTANT = "whereby_trigger.assistant"
DELIVERIES = "whereby_trigger.deliveries"
PYTHON = "python"

DELIVERY_SIZE = 512
"""Characters that a delivery's line counts as before it is formatted."""

Format = Literal["text", "json"]

FIELDS: Final = (
    "type",
    "room",
    "webhook_id",
    "session_id",
    "replica",
    "attempt",
    "stream",
    "answer",
    "decision",
    "reason",
    "ms",
    "unsigned",
    "skew_s",
    "folded",
)
"""What a line may be about, each an attribute of its record and a field in JSON."""

FOLD_AFTER: Final = 5
FOLD_FOR: Final = 10.0
"""Of one kind of warning, how many lines pass within how many seconds; the rest are counted."""

MOST_BURSTS: Final = 256
"""Kinds of warnings that are counted at a time; a warning of one more kind passes."""

GREEN, YELLOW, RED, DIM = "32", "33", "31", "2"
COLOURS = {"fired": GREEN, "notified": GREEN, "held": YELLOW, "failed": RED, "quarantined": RED}


_ENCODER: Final = msgspec.json.Encoder(enc_hook=str)
_escape: Final = json.JSONEncoder(default=str).encode


def _encode(fields: dict[str, Any]) -> str:
    """Return what `json.dumps` does: printable ASCII only, so that no terminal or reader stumbles over a line."""
    with suppress(Exception):
        text = msgspec.json.format(_ENCODER.encode(fields), indent=0)
        # Of the control characters, msgspec escapes all but this one.
        if text.isascii() and b"\x7f" not in text:
            return text.decode()
    return _escape(fields)


@lru_cache(maxsize=2)
def _in_utc(second: int) -> str:
    """Return a second since the epoch in UTC; cached, because many lines have the same."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class PlainFormatter(logging.Formatter):
    """Format a record as a line for a person; if `coloured`, by a delivery's decision or the record's level.

    With `pastes`, a record that has code to paste is that, on lines of its own.
    """

    def __init__(self, *, coloured: bool = False, pastes: bool = False) -> None:
        super().__init__()
        self._coloured = coloured
        self._pastes = pastes

    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S")
        plain = _is_delivery(record) or record.levelno <= logging.INFO
        mark = "" if plain else f"{record.levelname.lower()}: "
        paste = getattr(record, "paste", None) if self._pastes else None
        text = "\n".join([record.getMessage() if paste is None else paste, *_traced(self, record).values()])
        shown = printable(text, keep="\n")
        line = f"{clock} {mark}{shown}"
        colour = _colour_of(record) if self._coloured else None
        return line if colour is None else f"\x1b[{colour}m{line}\x1b[0m"


class JsonFormatter(logging.Formatter):
    """Format a record as one JSON object on one line: time, level, logger, message, and the record's own `FIELDS`.

    A delivery's line has no message: its fields say all.
    """

    def format(self, record: logging.LogRecord) -> str:
        second, milliseconds = divmod(round(record.created * 1e6) // 1000, 1000)
        fields: dict[str, Any] = {
            "time": f"{_in_utc(second)}.{milliseconds:03d}+00:00",
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if not _is_delivery(record):
            fields["message"] = record.getMessage()
        attributes = record.__dict__
        fields |= {name: attributes[name] for name in FIELDS if name in attributes}
        fields |= _traced(self, record)
        return _encode(fields)


OURS: Final = (JsonFormatter, PlainFormatter)
"""Formatters that depend on nothing but the record. Another may read context variables, or fail, which must be told."""


class QueueingHandler(logging.Handler):
    """Pass each record's line to a writer with a thread of its own: logging never waits for the log's reader.

    Of a burst of one of our warnings, the first few pass; one line then says how many more there were.
    """

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._bursts = _Bursts()
        self.writer = writer
        writer.note, writer.last = self._note, self._last
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._bursts.clear)

    @property
    def stream(self) -> TextIO | None:
        """The stream that is written to."""
        return self.writer.stream

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if record.levelno == logging.WARNING and self._folds(record):
                return
            if record.name == DELIVERIES and type(self.formatter) in OURS:
                # A delivery's record never changes, so the thread can format it.
                self.writer.put(partial(self._line, record), DELIVERY_SIZE)
            else:
                line = self._line(record)
                self.writer.put(line, len(line))
        except RecursionError:
            raise
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Wait until what was logged is written, at most a second."""
        self.writer.flush()

    def _line(self, record: logging.LogRecord) -> str:
        return self.format(record) + "\n"

    def _folds(self, record: logging.LogRecord) -> bool:
        """Return True if a warning is only counted, as one of a burst."""
        kind = _kind_of(record)
        burst = None if kind is None else self._bursts.count(kind, time.monotonic())
        if kind is None or burst is None or burst.seen <= FOLD_AFTER:
            return False
        if burst.last is None and not self.writer.put_later(partial(self._folded, kind, burst), FOLD_FOR):
            return False
        burst.last = record
        return True

    def _folded(self, kind: Hashable, burst: "_Burst") -> str:
        """Return the line that says how many warnings were folded; the writer's thread calls it."""
        self.acquire()
        try:
            self._bursts.end(kind, burst)
        finally:
            self.release()
        if burst.last is None:
            return ""
        folded, text = burst.seen - FOLD_AFTER, " ".join(burst.last.getMessage().split())
        record = _record(burst.last.name, f"{folded} more like this in {FOLD_FOR:g} s, the last: {text}")
        record.folded = folded
        return self._line(record)

    def _note(self, dropped: int) -> str:
        return self._line(_record(ROOT, in_words(dropped)))

    def _last(self, text: str, raised: str) -> str:
        if not isinstance(self.formatter, JsonFormatter):
            return f"{raised}whereby-trigger: {text}\n"
        record = _record(ROOT, text, logging.ERROR)
        record.raised = raised.rstrip()
        return self._line(record)


class _Burst:
    """Count the warnings of one kind since `began`; `last` is the last one that did not pass."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.seen = 0
        self.last: logging.LogRecord | None = None


class _Bursts:
    """Count warnings by kind, for at most `MOST_BURSTS` kinds at a time."""

    def __init__(self) -> None:
        self._bursts: dict[Hashable, _Burst] = {}

    def count(self, kind: Hashable, now: float) -> _Burst | None:
        """Count one more warning and return its burst, or None if there are too many kinds."""
        burst = self._bursts.get(kind)
        if burst is None or (burst.last is None and burst.began <= now - FOLD_FOR):
            if burst is None and len(self._bursts) >= MOST_BURSTS:
                self._forget(now)
            if burst is None and len(self._bursts) >= MOST_BURSTS:
                return None
            burst = self._bursts[kind] = _Burst(now)
        burst.seen += 1
        return burst

    def end(self, kind: Hashable, burst: _Burst) -> None:
        """Begin a new burst with the next warning of a kind."""
        if self._bursts.get(kind) is burst:
            del self._bursts[kind]

    def clear(self) -> None:
        """Forget all that was counted: a forked child does not report what its parent will."""
        self._bursts.clear()

    def _forget(self, now: float) -> None:
        """Forget the kinds of which none was folded lately."""
        kept = [(kind, burst) for kind, burst in self._bursts.items() if burst.last or burst.began > now - FOLD_FOR]
        self._bursts = dict(kept)


def handler(format: Format | None = None, stream: TextIO | None = None) -> QueueingHandler:
    """Return a handler that writes to a stream, by default standard error, and never waits for its reader.

    `format` is "text" or "json"; by default text on a terminal and JSON elsewhere. `logging.config.dictConfig` can
    create it: `{"()": "whereby_trigger.logs.handler", "format": "json"}`. Raises ConfigError for another format.
    """
    if format not in (None, "text", "json"):
        raise ConfigError(f'format must be "text" or "json", or left out, not {format!r}')
    return _handler(sys.stderr if stream is None else stream, format)


def configure(*, level: int | str = logging.INFO, format: Format | None = None, stream: TextIO | None = None) -> None:
    """Send the log of `whereby_trigger` to a stream, by default standard error, without ever waiting for its reader.

    For programs that mount a trigger and want the log that `whereby-trigger start` has. `level` is a level's name or
    number; `format` is "text" or "json", by default text on a terminal and JSON elsewhere. A second call replaces what
    the first one set. Other loggers, the root among them, stay as they are, and get no line of ours any longer.
    Raises ConfigError for a level or a format that there is not.
    """
    ours = logging.getLogger(ROOT)
    before = ours.level
    try:
        ours.setLevel(level)
    except (TypeError, ValueError):
        raise ConfigError(f"level must be the name or number of a logging level, such as INFO, not {level!r}") from None
    try:
        new = handler(format, stream)
    except ConfigError:
        ours.setLevel(before)
        raise
    _install(new, ours)


def configure_program(*, pastes: bool = False, whole: bool = False) -> None:
    """Send our log and the server's to standard error, unless the program has configured logging itself.

    With `pastes`, text has code to paste. With `whole`, the process is ours: so do all loggers, Python's warnings and
    tracebacks, each on one line in JSON.
    """
    if logging.getLogger(ROOT).handlers or logging.getLogger().handlers:
        return
    new = _handler(sys.stderr, None, pastes=pastes)
    logging.getLogger(ROOT).setLevel(logging.INFO)
    _install(new, logging.getLogger(ROOT))
    _install(new, logging.getLogger(SERVER))
    if whole and isinstance(new.formatter, JsonFormatter):
        logging.getLogger().addHandler(new)
        logging.captureWarnings(True)
        sys.excepthook = _log_uncaught
        sys.unraisablehook = lambda raised: _log_uncaught(raised.exc_type, raised.exc_value, raised.exc_traceback)
        threading.excepthook = _log_uncaught_in_thread


def show_status(text: str) -> bool:
    """Show a text below the log if that goes to a terminal; return False if it does not. "" shows none."""
    for one in logging.getLogger(ROOT).handlers:
        if isinstance(one, QueueingHandler) and isinstance(one.formatter, PlainFormatter) and _is_terminal(one.stream):
            one.writer.show_status(printable(text)[: shutil.get_terminal_size().columns - 1])
            return True
    return False


def have_thread() -> None:
    """Log in a thread again, in a forked child that is about to serve."""
    for one in logging.getLogger(ROOT).handlers:
        if isinstance(one, QueueingHandler):
            one.writer.have_thread()


def _handler(stream: TextIO | None, format: Format | None, *, pastes: bool = False) -> QueueingHandler:
    new = QueueingHandler(writer_of(stream))
    on_terminal = _is_terminal(stream)
    if format == "json" or (format is None and not on_terminal):
        new.setFormatter(JsonFormatter())
    else:
        new.setFormatter(PlainFormatter(coloured=on_terminal and wants_colour(), pastes=pastes))
    return new


def _install(new: QueueingHandler, logger: logging.Logger) -> None:
    for old in [one for one in logger.handlers if isinstance(one, QueueingHandler)]:
        logger.removeHandler(old)
    logger.addHandler(new)
    logger.propagate = False


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def _record(name: str, text: str, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord(name, level, __file__, 0, text.replace("%", "%%"), (), None)


def _log_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """Log what nobody caught as Python's own hooks print it; at the interpreter's end nothing is left to do so with."""
    with suppress(Exception):
        raised = error if error is not None else kind()
        logging.getLogger(PYTHON).error("%s was not caught", kind.__name__, exc_info=(kind, raised, trace))


def _log_uncaught_in_thread(raised: threading.ExceptHookArgs) -> None:
    # `sys.exit()` is a way to end a thread. Source: Python docs, threading.excepthook.
    if raised.exc_type is not SystemExit:
        _log_uncaught(raised.exc_type, raised.exc_value, raised.exc_traceback)


def _is_delivery(record: logging.LogRecord) -> bool:
    return record.name == DELIVERIES and hasattr(record, "answer")


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] in (ROOT, SERVER)


def _kind_of(record: logging.LogRecord) -> Hashable | None:
    """Return what makes two warnings alike; None if each of them counts: a run's, and those of others."""
    if not _is_ours(record.name) or hasattr(record, "attempt"):
        return None
    if _is_delivery(record):
        fields = record.__dict__
        return DELIVERIES, fields["answer"], fields["decision"], fields["reason"]
    # Many have "%s" for all of their text.
    return record.name, record.getMessage() if record.msg == "%s" else record.msg


def _traced(formatter: logging.Formatter, record: logging.LogRecord) -> dict[str, str]:
    """Return the exception and the stack that an assistant or another program's logger logged.

    Their authors decide what they contain. Those of our own lines are left out, since they may hold values from a
    webhook or from the user's code.
    """
    if raised := getattr(record, "raised", ""):
        return {"exception": raised}
    if _is_ours(record.name) and record.name != ASSISTANT and not record.name.startswith(f"{ASSISTANT}."):
        return {}
    exception = formatter.formatException(record.exc_info) if record.exc_info else record.exc_text
    stack = formatter.formatStack(record.stack_info) if record.stack_info else None
    return {name: text for name, text in (("exception", exception), ("stack", stack)) if text}


def _colour_of(record: logging.LogRecord) -> str | None:
    if not _is_delivery(record):
        return YELLOW if record.levelno > logging.INFO else None
    fields = record.__dict__
    return COLOURS.get(fields["decision"], DIM if fields["answer"] == 200 else YELLOW)
