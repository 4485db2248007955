"""A process assistant inherits what it needs, and no credentials of ours."""

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.until import eventually
from whereby_trigger import Trigger
from whereby_trigger.assist.process import child_environment
from whereby_trigger.config import OPTIONS, Option
from whereby_trigger.testing import webhook

ROOM = {
    "WHEREBY_ROOM_URL": "https://acme.whereby.com/visit-1",
    "WHEREBY_ROOM_NAME": "/visit-1",
    "WHEREBY_WEBHOOK_ID": "1",
}
SECRET = "f2b7c3d4e5a6978812345678"
DSN = "postgresql://trigger:s%40fe@db.internal/webhooks"


def test_it_is_what_we_have_with_the_users_own_and_the_room_on_top() -> None:
    base = {"PATH": "/bin", "LANG": "C", "WHEREBY_ROOM_URL": "an older room"}
    assert child_environment(base, ROOM, {"LANG": "de_DE.UTF-8", "KEY": "1"}) == {
        "PATH": "/bin",
        "LANG": "de_DE.UTF-8",
        "KEY": "1",
        **ROOM,
    }


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.name in ("secret", "store")])
@pytest.mark.parametrize("from_user", [False, True], ids=["inherited", "given with {**os.environ}"])
def test_our_secret_and_our_store_are_left_out_by_name(option: Option, from_user: bool) -> None:
    ours = dict.fromkeys(option.environment, "x")
    assert ours
    assert child_environment({} if from_user else ours, ROOM, ours if from_user else {}) == ROOM


def test_what_opens_a_postgresql_without_a_password_in_its_url_is_left_out() -> None:
    base = {"PGPASSWORD": "s@fe", "PGPASSFILE": "/etc/pgpass", "PGSERVICE": "hooks", "PGHOST": "db.internal"}
    assert child_environment(base, ROOM, {}, hidden=("postgresql:///hooks",)) == {"PGHOST": "db.internal", **ROOM}
    assert child_environment(base, ROOM, {}, hidden=("sqlite:///hooks.db",)) == {**base, **ROOM}


def test_a_password_among_a_urls_options_is_left_out() -> None:
    base = {"MY_PASSWORD": "s@fe-and-long-enough"}
    dsn = "postgresql:///hooks?user=trigger&password=s%40fe-and-long-enough"
    assert child_environment(base, ROOM, {}, hidden=(dsn,)) == ROOM


def test_every_setting_of_ours_is_left_out_by_name() -> None:
    assert child_environment({"WHEREBY_TRIGGER_PORT": "1", "WHEREBY_TRIGGER_NEW": "1"}, ROOM, {}) == ROOM


@pytest.mark.parametrize(
    "value", [SECRET, DSN, f'{{"secret": "{SECRET}"}}', f"{SECRET},other", f"{DSN}?a=1", "s%40fe", "s@fe"]
)
@pytest.mark.parametrize("from_user", [False, True])
def test_our_secret_and_our_store_are_left_out_under_any_other_name(value: str, from_user: bool) -> None:
    other = {"DATABASE_URL": value}
    base, extra = ({}, other) if from_user else (other, {})
    assert child_environment(base, ROOM, extra, hidden=(SECRET, DSN)) == ROOM


def test_a_short_secret_takes_only_its_equal_with_it() -> None:
    base = {"PATH": "/home/test/bin", "SECRET": "test"}
    assert child_environment(base, {}, {}, hidden=("test",)) == {"PATH": "/home/test/bin"}


@pytest.mark.parametrize("hidden", ["", "sqlite:///whereby-trigger.db", "http://[broken"])
def test_a_hidden_value_that_holds_no_password_takes_nothing_else_with_it(hidden: str) -> None:
    base = {"PATH": "/bin", "EMPTY": "", "URL": "http://[also broken"}
    assert child_environment(base, {}, {}, hidden=(hidden,)) == base


@given(st.dictionaries(st.text(), st.text()), st.dictionaries(st.text(), st.text()), st.text(min_size=1))
def test_no_inherited_variable_ever_holds_a_hidden_value(
    base: dict[str, str], extra: dict[str, str], secret: str
) -> None:
    given = child_environment(base, ROOM, extra, hidden=(secret,))
    assert secret not in [value for name, value in given.items() if name not in ROOM]
    assert {name: given[name] for name in ROOM} == ROOM


TOKEN = "what-one-logs-in-with"
WRITES_WHAT_IT_HAS = "import json, os; open('environment.json', 'w').write(json.dumps(dict(os.environ)))"


@pytest.mark.anyio
async def test_the_inspectors_token_is_left_out_under_any_other_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADMIN_TOKEN", TOKEN)
    monkeypatch.setenv("ASSISTANT_KEY", "its own")
    trigger = Trigger(webhook_triggers={"assistant.requested": lambda: True}, inspector_token=TOKEN)
    trigger.assistant_command([sys.executable, "-c", WRITES_WHAT_IT_HAS], env={"URL": f"http://127.0.0.1/#{TOKEN}"})
    async with trigger.testing(assistants="run") as t:
        await t.deliver(webhook("assistant.requested"))

        async def is_over() -> bool:
            return [room.state for room in await trigger.list_assistants()] == ["ended"]

        await eventually(is_over)
    has = json.loads((tmp_path / "environment.json").read_text())
    assert has["ASSISTANT_KEY"] == "its own"
    assert not [name for name, value in has.items() if TOKEN in value]
