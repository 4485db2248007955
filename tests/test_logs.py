"""The log: its fields, what is folded, and `logs.configure()` for programs that mount a trigger."""

import io
import json
import logging
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.until import until
from whereby_trigger import ConfigError, Session, logs
from whereby_trigger.deliveries import Delivery, DeliveryLog
from whereby_trigger.stderr import MOST_LINES, lines_dropped
from whereby_trigger.testing import webhook
from whereby_trigger.webhook import room_from_url

OURS = logging.getLogger(logs.ROOT)


@pytest.fixture(autouse=True)
def configured_as_before() -> Iterator[None]:
    """Restore the logging configuration after the test."""
    loggers = [logging.getLogger(name) for name in ("", logs.ROOT, logs.SERVER)]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, handlers, level, propagate in before:
        logger.handlers[:], logger.level, logger.propagate = handlers, level, propagate
    logging.Logger.manager._clear_cache()  # type: ignore[attr-defined]


def ours() -> logs.QueueingHandler:
    """Return our only handler: pytest has its own there."""
    (handler,) = (one for one in OURS.handlers if isinstance(one, logs.QueueingHandler))
    return handler


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Return what was logged so far; a flush also ends the time in which warnings are folded."""
    ours().flush()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture
def log() -> io.StringIO:
    stream = io.StringIO()
    logs.configure(stream=stream)
    return stream


def session(**data: Any) -> Session:
    fired = webhook("room.client.joined", room="/visit-1", data=data)
    return Session(room_from_url("https://acme.whereby.com/visit-1"), fired, 2, replica="replica-1")


def test_what_an_assistant_logs_has_its_run_as_fields_beside_its_own(log: io.StringIO) -> None:
    one = session(roomSessionId="session-1")
    one.log.info("joined")
    one.log.info("%s: %s", "stderr", "no microphone", extra={"stream": "stderr"})
    joined, said = lines(log)
    fields = {
        "room": "acme.whereby.com/visit-1",
        "webhook_id": one.webhook.id if one.webhook else "",
        "session_id": "session-1",
        "replica": "replica-1",
        "attempt": 2,
    }
    assert fields.items() <= joined.items()
    assert (fields | {"stream": "stderr"}).items() <= said.items()
    assert joined["message"] == "[acme.whereby.com/visit-1] joined"


def test_the_fields_of_a_delivery_are_attributes_of_its_record(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logs.DELIVERIES)
    delivery = Delivery(200, "True", "room.client.joined", "acme.whereby.com/a", "1", "session-1", decision="fired")
    DeliveryLog(replica=lambda: "replica-1").answered(delivery)
    (record,) = caplog.records
    fields = {name: record.__dict__[name] for name in logs.FIELDS if name in record.__dict__}
    assert fields == {
        "type": "room.client.joined",
        "room": "acme.whereby.com/a",
        "webhook_id": "1",
        "session_id": "session-1",
        "replica": "replica-1",
        "answer": 200,
        "decision": "fired",
        "reason": "True",
        "ms": 0.0,
    }


def test_the_record_of_a_delivery_is_one_that_logging_makes_itself_whatever_delivery_came_before(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, logs.DELIVERIES)
    deliveries = DeliveryLog()
    deliveries.answered(Delivery(401, "stale signature", skew=-400.0))
    deliveries.answered(Delivery(200, "True", "room.client.joined", decision="fired"))
    monkeypatch.setattr(logging, "_logRecordFactory", type("Theirs", (logging.LogRecord,), {}))
    deliveries.answered(Delivery(200, "True", "room.client.joined", decision="fired"))
    first, quick, theirs = (dict(record.__dict__) for record in caplog.records)
    assert first.pop("skew_s") == -400.0
    assert type(caplog.records[1]) is logging.LogRecord
    assert type(caplog.records[2]).__name__ == "Theirs"
    differing = {name for name in theirs if quick[name] != theirs[name]}
    assert quick.keys() == theirs.keys() == first.keys()
    assert differing <= {"created", "msecs", "relativeCreated", "msg"}
    assert 0 <= theirs["relativeCreated"] - quick["relativeCreated"] < 60_000
    assert caplog.records[1].getMessage() == caplog.records[2].getMessage()


TENTHS = st.integers(0, 9999).map(lambda tenths: tenths / 10)
VALUES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text() | TENTHS


@given(st.dictionaries(st.sampled_from(logs.FIELDS), VALUES))
def test_in_json_a_line_is_what_json_dumps_returns(fields: dict[str, Any]) -> None:
    record = logging.makeLogRecord({"name": logs.ROOT, "created": 1764457200.123456, "msg": "said"} | fields)
    time = "2025-11-29T23:00:00.123+00:00"
    expected = {"time": time, "level": "level 0", "logger": logs.ROOT, "message": "said"}
    expected |= {name: fields[name] for name in logs.FIELDS if name in fields}
    record.levelname = "level 0"
    assert logs.JsonFormatter().format(record) == json.dumps(expected)


def test_of_a_burst_of_one_warning_a_few_pass_and_one_line_counts_the_rest(log: io.StringIO) -> None:
    for number in range(17):
        OURS.warning("webhook %d stays pending", number)
    OURS.warning("another")
    assert [line["message"] for line in lines(log)] == [
        *(f"webhook {number} stays pending" for number in range(logs.FOLD_AFTER)),
        "another",
        "12 more like this in 10 s, the last: webhook 16 stays pending",
    ]
    assert [line["folded"] for line in lines(log) if "folded" in line] == [12]


def test_what_was_folded_is_told_although_nothing_more_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FOLD_FOR", 0.05)
    stream = io.StringIO()
    logs.configure(stream=stream)
    for _ in range(logs.FOLD_AFTER + 3):
        OURS.warning("again")
    until(lambda: "3 more like this" in stream.getvalue())


def test_deliveries_are_folded_by_what_became_of_them(log: io.StringIO) -> None:
    deliveries = DeliveryLog()
    for number in range(20):
        deliveries.answered(Delivery(200, "f raised ValueError", room=f"r{number}", id=f"{number}", decision="failed"))
        deliveries.answered(Delivery(200, "f returned True", id=f"{number}", decision="fired"))
        deliveries.answered(Delivery(503, "the database is away"))
    seen = [(line.get("decision"), line.get("answer"), line.get("folded")) for line in lines(log)]
    assert seen.count(("fired", 200, None)) == 20
    assert seen.count(("failed", 200, None)) == seen.count(("", 503, None)) == logs.FOLD_AFTER
    assert seen.count((None, None, 20 - logs.FOLD_AFTER)) == 2


def test_no_line_of_a_run_is_folded_and_no_error_or_line_of_others(log: io.StringIO) -> None:
    logging.getLogger().addHandler(ours())
    for _ in range(20):
        session().log.warning("no microphone")
        OURS.error("out of files")
        logging.getLogger("theirs").warning("theirs")
    assert len(lines(log)) == 60


def test_kinds_of_warnings_that_are_counted_are_bounded(log: io.StringIO) -> None:
    for number in range(10 * logs.MOST_BURSTS):
        OURS.warning("%s", f"kind {number}")
    handler = ours()
    assert len(handler._bursts._bursts) == logs.MOST_BURSTS
    assert len(lines(log)) == 10 * logs.MOST_BURSTS


class Adding(logging.Logger):
    """Add to each record how many there were."""

    made = 0

    def makeRecord(self, *args: Any, **kwargs: Any) -> logging.LogRecord:  # noqa: N802
        self.made += 1
        record = super().makeRecord(*args, **kwargs)
        record.made = self.made
        return record


def test_what_a_class_of_loggers_adds_to_a_record_is_of_that_record(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, logs.DELIVERIES)
    monkeypatch.setattr(logging.getLogger(logs.DELIVERIES), "__class__", Adding)
    deliveries = DeliveryLog()
    for _ in range(3):
        deliveries.answered(Delivery(200, "True"))
    assert [record.__dict__["made"] for record in caplog.records] == [1, 2, 3]


def test_what_a_record_factory_added_is_gone_once_the_factory_is(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, logs.DELIVERIES)
    deliveries = DeliveryLog()
    with monkeypatch.context() as patched:
        traced = type("Traced", (logging.LogRecord,), {"__init__": lambda self, *args, **kwargs: _trace(self, *args)})
        patched.setattr(logging, "_logRecordFactory", traced)
        deliveries.answered(Delivery(200, "True"))
    deliveries.answered(Delivery(200, "True"))
    assert ["trace" in record.__dict__ for record in caplog.records] == [True, False]


def _trace(record: logging.LogRecord, *args: Any) -> None:
    logging.LogRecord.__init__(record, *args)
    record.trace = "of a request"


ASKED_BY: ContextVar[str] = ContextVar("ASKED_BY", default="nobody")


class InContext(logging.Formatter):
    """Show a context variable, as the formatters of structlog do."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps({"asked_by": ASKED_BY.get(), "room": record.__dict__["room"]})


def test_a_formatter_of_the_program_sees_the_context_in_which_a_delivery_was_logged(log: io.StringIO) -> None:
    ours().setFormatter(InContext())
    set_before = ASKED_BY.set("request-1")
    try:
        DeliveryLog().answered(Delivery(200, "True", room="a"))
    finally:
        ASKED_BY.reset(set_before)
    assert lines(log) == [{"asked_by": "request-1", "room": "a"}]


def test_a_delivery_that_a_formatter_of_the_program_cannot_format_is_an_error_of_logging(
    log: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    ours().setFormatter(logging.Formatter("%(attempt)s %(message)s"))
    DeliveryLog().answered(Delivery(200, "True", room="a"))
    assert lines(log) == []
    assert "Formatting field not found in record: 'attempt'" in capsys.readouterr().err


def test_in_json_every_record_is_one_line_whatever_it_holds(log: io.StringIO) -> None:
    OURS.info("several\nlines", extra={"room": object(), "paste": "def f():\n    ..."})
    try:
        raise ValueError("a\nb")
    except ValueError:
        session().log.exception("could not join")
    several, failed = lines(log)
    assert several["message"] == "several\nlines"
    assert "paste" not in several
    assert "ValueError: a\nb" in failed["exception"]


def test_a_second_call_replaces_what_the_first_one_set() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.configure(stream=first)
    logs.configure(level="WARNING", format="text", stream=second)
    OURS.info("hidden")
    OURS.warning("shown")
    ours().flush()
    assert first.getvalue() == ""
    assert second.getvalue().endswith("warning: shown\n")
    assert ours().stream is second


def test_the_same_stream_keeps_its_one_thread() -> None:
    stream = io.StringIO()
    writers = []
    for level in ("INFO", "WARNING"):
        logs.configure(level=level, stream=stream)
        writers.append(ours().writer)
    assert writers[0] is writers[1]


def test_the_loggers_of_a_host_stay_as_they_are(log: io.StringIO) -> None:
    root, server, theirs = logging.getLogger(), logging.getLogger(logs.SERVER), logging.StreamHandler()
    before = root.handlers[:], root.level, server.handlers[:], server.propagate
    OURS.addHandler(theirs)
    logs.configure(stream=log)
    assert (root.handlers[:], root.level, server.handlers[:], server.propagate) == before
    assert theirs in OURS.handlers


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"level": "LOUD"}, "level must be the name or number of a logging level, such as INFO, not 'LOUD'"),
        ({"level": None}, "level must be"),
        ({"format": "xml"}, 'format must be "text" or "json", or left out, not \'xml\''),
    ],
)
def test_a_level_or_a_format_that_there_is_not_is_refused_and_changes_nothing(wrong: Any, said: str) -> None:
    level, handlers = OURS.level, OURS.handlers[:]
    with pytest.raises(ConfigError, match=f"^{said}"):
        logs.configure(**{"level": "DEBUG"} | wrong)
    assert (OURS.level, OURS.handlers) == (level, handlers)


def test_a_forked_child_of_which_nobody_asks_for_a_thread_folds_nothing(log: io.StringIO) -> None:
    handler = ours()
    handler.writer._forked()
    for _ in range(20):
        OURS.warning("again")
    assert log.getvalue().count("again") == 20


class StalledStream(io.StringIO):
    """Take nothing until `reads` is set, as standard output whose reader has stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = threading.Event()

    def write(self, text: str) -> int:
        assert self.reads.wait(20)
        return super().write(text)


def test_all_handlers_of_one_stream_write_by_one_thread() -> None:
    stream = io.StringIO()
    assert logs.handler("json", stream).writer is logs.handler("text", stream).writer
    assert logs.handler("json", io.StringIO()).writer is not logs.handler("json", stream).writer


def test_lines_that_are_dropped_on_any_stream_are_counted() -> None:
    stream, before, sent = StalledStream(), lines_dropped(), 2 * MOST_LINES
    handler = logs.handler("text", stream)
    for _ in range(sent):
        handler.handle(logging.LogRecord("host", logging.INFO, __file__, 0, "said", (), None))
    dropped = lines_dropped() - before
    stream.reads.set()
    handler.flush()
    assert dropped == sent - stream.getvalue().count("said") > 0
