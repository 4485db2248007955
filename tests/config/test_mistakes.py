"""A call or a setting that is almost right gets an error that says what to write."""

import gc
import socket
import sys
import warnings
from types import ModuleType
from typing import Any

import pytest

from whereby_trigger import ConfigError, RegistrationError, Trigger
from whereby_trigger.config import resolve
from whereby_trigger.errors import AddressError
from whereby_trigger.receive import bind

ANY_TRIGGER: Any = Trigger


@pytest.mark.parametrize(
    ("keyword", "said"),
    [
        ("webhookTriggers", "Trigger has no setting 'webhookTriggers': write webhook_triggers="),
        ("maxRooms", "Trigger has no setting 'maxRooms': write max_rooms="),
        ("drain_timout", "Trigger has no setting 'drain_timout': write drain_timeout="),
        ("xyz", "Trigger has no setting 'xyz': there are webhook_triggers, port, "),
    ],
)
def test_a_keyword_that_there_is_not_names_the_one_that_was_meant(keyword: str, said: str) -> None:
    with pytest.raises(TypeError, match=f"^{said}"):
        ANY_TRIGGER(**{keyword: 1})


def test_a_dict_in_first_place_is_told_its_keyword() -> None:
    with pytest.raises(TypeError, match=r"write Trigger\(webhook_triggers=\{\.\.\.\}"):
        ANY_TRIGGER({"room.client.joined": lambda: True})


def test_a_class_of_the_users_own_takes_what_it_likes() -> None:
    class Ours(Trigger):
        def __init__(self, name: str, *, anything: int) -> None:
            super().__init__(port=anything)

    assert Ours("mine", anything=8123).port == 8123


def test_a_serve_that_nobody_awaits_is_named() -> None:
    trigger = Trigger()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        forgotten: Any = trigger.serve()
        del forgotten
        gc.collect()
    said = [str(warning.message) for warning in warned]
    assert any("not awaited, so nothing was served: write `await trigger.serve()`" in text for text in said)


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("WHEREBY_TRIGGER_MAX_ROOM", "WHEREBY_TRIGGER_MAX_ROOMS"),
        ("WHEREBY_TRIGGER_DRAINTIMEOUT", "WHEREBY_TRIGGER_DRAIN_TIMEOUT"),
        ("whereby_trigger_store", "WHEREBY_TRIGGER_STORE"),
        ("WHEREBY_TRIGGER_SECRET", "WHEREBY_WEBHOOK_SECRET"),
        ("WHEREBY_WEBHOOK_SECRETS", "WHEREBY_WEBHOOK_SECRET"),
    ],
)
def test_a_misspelt_variable_is_a_warning_that_names_the_right_one(variable: str, meant: str) -> None:
    (warning,) = resolve({}, environ={variable: "1"}).warnings
    assert warning == f"{variable} is set in the environment, but there is no such setting: did you mean {meant}?"


def test_variables_that_are_ours_or_somebody_elses_are_no_warning() -> None:
    environ = {"WHEREBY_API_KEY": "x", "WHEREBY_TRIGGER_STORE": "sqlite:///x.db", "WHEREBY_ROOM_URL": "x", "PORT": "1"}
    assert resolve({}, environ=environ | {"WHEREBY_TRIGGER_OF_ANOTHER_TEAM": "x"}).warnings == ()


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("7d", 604_800), ("2h", 7200), ("30m", 1800), ("90s", 90), ("1w", 604_800), (" 1.5 H ", 5400), ("90", 90)],
)
def test_a_duration_may_be_written_with_its_unit(written: str, seconds: float) -> None:
    assert resolve({"retention": written}).settings.retention == seconds
    assert resolve({}, environ={"WHEREBY_TRIGGER_RETENTION": written}).settings.retention == seconds


@pytest.mark.parametrize("written", ["7 days", "d", "-7d", "1d2h", "inf", ""])
def test_a_duration_that_is_none_gets_the_forms_that_there_are(written: str) -> None:
    with pytest.raises(ConfigError, match=r"a text such as 90s, 30m, 2h or 7d, or a timedelta, at least 60 s"):
        resolve({"retention": written})


@pytest.mark.parametrize("host", ["unix:/run/trigger.sock", "/run/trigger.sock"])
def test_a_unix_socket_as_host_is_told_how_it_is_done(host: str) -> None:
    with pytest.raises(
        ConfigError, match=r"listens on no Unix socket; `uvicorn app:trigger.asgi --uds FILE` serves it"
    ):
        Trigger(host=host)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))


CELL = """
@trigger.{register}
async def people(argument) -> bool:
    return True
"""


@pytest.mark.usefixtures("notebook")
@pytest.mark.parametrize("register", ['when("room.client.joined")', "assistant"])
def test_a_cell_that_registers_again_is_told_which_one_to_run_first(register: str) -> None:
    names: dict[str, Any] = {"trigger": Trigger(), "__name__": "__main__"}
    cell = compile(CELL.format(register=register), "<ipython-input-1>", "exec")
    exec(cell, names)  # noqa: S102
    with pytest.raises(RegistrationError, match="run the cell that makes the Trigger first"):
        exec(cell, names)  # noqa: S102


@pytest.mark.usefixtures("notebook")
def test_a_port_that_an_earlier_cell_serves_is_told_apart_from_a_strangers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(AddressError, match=rf"port {port} is in use .* a cell of this notebook made before"):
            bind("127.0.0.1", port)
