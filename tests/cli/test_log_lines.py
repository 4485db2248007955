"""The log on a terminal, and its hints."""

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Call
from tests.support.programs import write
from whereby_trigger import Trigger, WebhookType, deliveries, logs
from whereby_trigger.assist import Session
from whereby_trigger.deliveries import Delivery, DeliveryLog, handler_for, hint_at_handler
from whereby_trigger.store import Decision, State
from whereby_trigger.testing import webhook
from whereby_trigger.webhook import WEBHOOK_TYPES, room_from_url

FORGED = Delivery(401, "wrong signature")
STALE = Delivery(401, "stale signature", skew=-3600.4)
UNSIGNED = Delivery(401, "no signature")
TUNNELLED = Delivery(401, "no secret is set, and the request came through a proxy or tunnel")
ELSEWHERE = Delivery(404, "deliveries are taken at /hooks, not at /hook")
FIRED = Delivery(200, "predicate f returned True", "room.client.joined", "acme.whereby.com/a", "1", decision="fired")


class Terminal(io.StringIO):
    """Hold what a terminal would show."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """Send the log to a terminal, as the program does."""
    root, ours, server = (logging.getLogger(name) for name in ("", logs.ROOT, logs.SERVER))
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    logs.configure_program(pastes=True)
    yield stream
    for logger in (ours, server):
        logger.handlers.clear()
        logger.propagate = True


def shown(terminal: Terminal) -> str:
    """Return what has been logged so far; a thread writes it."""
    for handler in logging.getLogger(logs.ROOT).handlers:
        handler.flush()
    return terminal.getvalue()


def lines(terminal: Terminal) -> list[str]:
    """Return the lines without their colours and times."""
    plain = re.sub(r"\x1b\[[0-9]*m", "", shown(terminal))
    return [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in plain.splitlines()]


def hints_after(terminal: Terminal, *deliveries: Delivery) -> list[str]:
    log = DeliveryLog()
    for delivery in deliveries:
        log.answered(delivery)
    return [line for line in lines(terminal) if "in a row" in line]


@pytest.mark.parametrize(
    ("refused", "hint"),
    [
        (
            FORGED,
            "3 deliveries in a row were signed with another secret: is WHEREBY_WEBHOOK_SECRET the secret that "
            "Whereby's dashboard shows for this webhook (Configure, Webhooks)?",
        ),
        (
            STALE,
            "3 deliveries in a row were signed -3600 s from this machine's time: set its clock, or raise tolerance=",
        ),
        (
            UNSIGNED,
            "3 deliveries in a row were unsigned: either they are not Whereby's, or a proxy on the way drops the "
            "header Whereby-Signature",
        ),
        (
            TUNNELLED,
            "3 deliveries in a row were not from a program on this machine: to take them, set WHEREBY_WEBHOOK_SECRET "
            "to the secret that Whereby's dashboard shows for this webhook (Configure, Webhooks)",
        ),
        (
            ELSEWHERE,
            "3 deliveries in a row were sent to another path: is the URL right that Whereby's dashboard shows for "
            "this webhook (Configure, Webhooks), and does a proxy on the way change the path? path= sets the one that "
            "is served",
        ),
    ],
)
def test_three_refusals_of_a_kind_in_a_row_get_a_hint(terminal: Terminal, refused: Delivery, hint: str) -> None:
    assert hints_after(terminal, refused, refused) == []
    assert hints_after(terminal, refused, refused, refused) == [f"warning: {hint}"]


def test_refusals_of_different_kinds_or_with_a_good_delivery_between_get_none(terminal: Terminal) -> None:
    assert hints_after(terminal, FORGED, FORGED, STALE, FORGED, FORGED, FIRED, FORGED, FORGED) == []


def test_who_tries_paths_out_puts_off_no_hint_that_the_secret_is_wrong(terminal: Terminal) -> None:
    (hint,) = hints_after(terminal, FORGED, ELSEWHERE, FORGED, ELSEWHERE, FORGED)
    assert "signed with another secret" in hint
    assert len(hints_after(terminal, ELSEWHERE, ELSEWHERE, FIRED, ELSEWHERE)) == 1


def elsewhere(path: str) -> Delivery:
    return Delivery(404, f"deliveries are taken at /hooks, not at {path}")


def test_a_path_that_is_not_served_has_one_line_a_second_however_many_are_sent_there(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("whereby_trigger.deliveries.monotonic", lambda: now)
    log = DeliveryLog()

    def told(path: str) -> int:
        return sum(line.endswith(f"not at {path}  0.0 ms") for line in squeezed(terminal))

    for _ in range(50):
        log.answered(elsewhere("/hook"))
        log.answered(elsewhere("/"))
    assert (told("/hook"), told("/")) == (1, 1)
    now = 100.9
    log.answered(elsewhere("/hook"))
    assert told("/hook") == 1
    now = 101.1
    log.answered(elsewhere("/hook"))
    assert told("/hook") == 2


def test_many_paths_that_are_not_served_have_a_bounded_number_of_lines_and_hints(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.deliveries.monotonic", lambda: 100.0)
    log = DeliveryLog()
    for number in range(10_000):
        log.answered(elsewhere(f"/{number}"))
    assert len(lines(terminal)) <= deliveries.ELSEWHERE_A_SECOND


def squeezed(terminal: Terminal) -> list[str]:
    """Return the lines with their columns two spaces apart."""
    return [re.sub(" {2,}", "  ", line) for line in lines(terminal)]


def test_a_line_has_its_columns_under_each_other(terminal: Terminal) -> None:
    log = DeliveryLog()
    log.answered(FIRED)
    log.answered(FORGED)
    fired, forged = lines(terminal)
    assert re.split(" {2,}", fired) == [
        "room.client.joined",
        "acme.whereby.com/a",
        "200 fired",
        "predicate f returned True",
        "0.0 ms",
    ]
    for left, right in (("room.client", "- "), ("acme", "- "), ("200", "401"), ("predicate", "wrong"), ("0.0", "0.0")):
        assert forged[fired.index(left) :].startswith(right)


def test_colours_tell_what_became_of_a_delivery(terminal: Terminal) -> None:
    log = DeliveryLog()
    for delivery in (FIRED, FORGED, Delivery(200, "", decision="failed"), Delivery(200, "a duplicate")):
        log.answered(delivery)
    assert re.findall(r"\x1b\[([0-9]+)m\d", shown(terminal)) == [logs.GREEN, logs.YELLOW, logs.RED, logs.DIM]


@pytest.mark.parametrize(
    ("delivery", "level"),
    [
        (FIRED, "INFO"),
        (FORGED, "WARNING"),
        (Delivery(200, "predicate f raised ValueError", "room.client.joined", decision="failed"), "WARNING"),
    ],
)
def test_what_failed_or_was_refused_is_a_warning_and_nothing_else_is(
    caplog: pytest.LogCaptureFixture, delivery: Delivery, level: str
) -> None:
    caplog.set_level(logging.INFO, "whereby_trigger.deliveries")
    DeliveryLog().answered(delivery)
    (record,) = caplog.records
    assert (record.levelname, record.filename) == (level, "deliveries.py")


def test_a_type_can_neither_steer_the_terminal_nor_forge_a_line(terminal: Terminal) -> None:
    DeliveryLog().answered(Delivery(200, "no predicate for a\nb", "a\nb\u001b[2J\u009b", decision="unhandled"))
    (line,) = lines(terminal)
    assert "a b\\x1b[2J\\x9b" in line
    assert "no predicate for a b" in line


def test_in_a_format_of_the_users_own_a_payload_cannot_steer_a_terminal_either(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "whereby_trigger.deliveries")
    DeliveryLog().answered(Delivery(200, "no predicate for \x9b2J", "\u202e\x1b[2J", "\x1b[2J", decision="unhandled"))
    (record,) = caplog.records
    assert record.getMessage().isprintable()


def say_what_failed(log: "logging.Logger | logging.LoggerAdapter[logging.Logger]") -> None:
    try:
        raise ValueError("no \x1b[2J such pipe")
    except ValueError:
        log.exception("could not join", stack_info=True)


def test_what_an_assistant_logs_has_its_traceback_and_steers_no_terminal(terminal: Terminal) -> None:
    say_what_failed(Session(room_from_url("https://acme.whereby.com/visit-1"), None, 1).log)
    said, *traceback = lines(terminal)
    assert said == "error: [acme.whereby.com/visit-1] could not join"
    assert traceback[0] == "Traceback (most recent call last):"
    assert "ValueError: no \\x1b[2J such pipe" in traceback
    assert "Stack (most recent call last):" in traceback[traceback.index("ValueError: no \\x1b[2J such pipe") :]


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("whereby_trigger.assistant", {"exception", "stack"}),
        ("whereby_trigger.assistant.scribe", {"exception", "stack"}),
        ("whereby_trigger.assistants", set()),
        ("whereby_trigger", set()),
        ("uvicorn.error", set()),
    ],
)
def test_in_json_what_an_assistant_logs_has_its_traceback_and_no_other_line_has(
    name: str, keys: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(logs.JsonFormatter())
    monkeypatch.setattr(logging.getLogger(name), "handlers", [handler])
    say_what_failed(logging.getLogger(name))
    fields = json.loads(handler.stream.getvalue())
    assert fields.keys() - {"time", "level", "logger", "message"} == keys
    assert ("ValueError" in str(fields)) is bool(keys)


def test_on_a_terminal_no_line_of_ours_has_the_text_of_an_exception(terminal: Terminal) -> None:
    say_what_failed(logging.getLogger("whereby_trigger"))
    assert lines(terminal) == ["error: could not join"]


@pytest.mark.parametrize("pastes", [True, False], ids=["dev", "start"])
@pytest.mark.parametrize("type", WEBHOOK_TYPES)
def test_a_type_that_nothing_handles_is_one_line_for_start_and_code_to_paste_for_dev(
    terminal: Terminal, type: WebhookType, pastes: bool
) -> None:
    for handler in logging.getLogger(logs.ROOT).handlers:
        handler.setFormatter(logs.PlainFormatter(pastes=pastes))
    log = DeliveryLog()
    for id in ("1", "2"):
        decision = Decision(1, id, State.UNHANDLED, "no predicate", 0, 0.0)
        log.decided(webhook(type), None, 0.0, 0.0, decision)
    _, *hint, _ = lines(terminal)
    if pastes:
        assert "\n".join(hint) == handler_for(type)
    else:
        assert hint == [hint_at_handler(type)]
        (decorator,) = re.findall(r"@trigger\.\w+\(.*?\)", hint[0])
        assert decorator in handler_for(type)


@pytest.mark.anyio
@pytest.mark.parametrize("type", WEBHOOK_TYPES)
async def test_a_pasted_handler_starts_an_assistant_only_where_somebody_came_or_asked(type: WebhookType) -> None:
    program: dict[str, Any] = {}
    exec("from whereby_trigger import Trigger\ntrigger = Trigger()\n" + pasted(type), program)  # noqa: S102
    trigger: Trigger = program["trigger"]

    @trigger.assistant
    async def assistant(session: Session) -> None: ...

    async with trigger.testing() as t:
        person = await t.deliver(webhook(type, data={"roleName": "visitor"}))
        bot = await t.deliver(webhook(type, data={"roleName": "assistant"}))
    states = {"room.client.joined": ("fired", "skipped")} | dict.fromkeys(
        ("room.session.started", "assistant.requested"), ("fired", "fired")
    )
    assert (person.state, bot.state) == states.get(type, ("notified", "notified"))
    assert bool(t.assistants) == (type in states)


def pasted(type: WebhookType) -> str:
    return handler_for(type).partition("paste\n\n")[2]


@pytest.mark.parametrize("type", WEBHOOK_TYPES)
def test_the_handler_to_paste_needs_nothing_else(call: Call, tmp_path: Path, type: WebhookType) -> None:
    write(tmp_path, f"from whereby_trigger import Trigger\ntrigger = Trigger()\n\n{pasted(type)}\n")
    checked = [json.loads(line) for line in call("check", "--json", "--port", "0").stdout.splitlines()]
    assert [found["ok"] for found in checked if found["detail"].endswith(f" for {type}")] == [True]


@pytest.mark.parametrize("delivery", [FIRED, TUNNELLED])
def test_every_line_of_a_delivery_says_so_if_no_signature_is_checked(terminal: Terminal, delivery: Delivery) -> None:
    DeliveryLog(signed=False).answered(delivery)
    DeliveryLog(signed=True).answered(delivery)
    unsigned, signed = lines(terminal)
    assert unsigned.endswith("ms UNSIGNED")
    assert "UNSIGNED" not in signed
