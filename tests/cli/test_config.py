"""`config`: each setting with its value and its source, and no secret."""

import json
from pathlib import Path
from typing import Any

from tests.cli.conftest import Call
from tests.support.programs import write
from whereby_trigger.config import NAMES

SETS_PATH_AND_SECRET = "from whereby_trigger import Trigger\nt = Trigger(path='/keyword', port=1, secret='hush-1')"


def settings(call: Call, *arguments: str, env: dict[str, str] | None = None) -> dict[str, tuple[Any, str]]:
    ended = call("config", "--json", *arguments, env=env)
    assert ended.returncode == 0, ended.stderr
    rows = map(json.loads, ended.stdout.splitlines())
    return {row["name"]: (row["value"], row["source"]) for row in rows}


def test_every_setting_is_there_with_its_default(call: Call) -> None:
    found = settings(call)
    assert tuple(found) == NAMES
    assert {source for _, source in found.values()} == {"default"}
    assert found["port"] == (8080, "default")
    assert found["host"] == (None, "default")


def test_each_value_says_where_it_comes_from(call: Call, tmp_path: Path) -> None:
    write(tmp_path, SETS_PATH_AND_SECRET)
    environment = {"PORT": "3", "WHEREBY_TRIGGER_PATH": "/environment", "WHEREBY_TRIGGER_MAX_BODY": "2048"}
    found = settings(call, "--port", "2", env=environment)
    assert found["port"] == (2, "command line")
    assert found["path"] == ("/keyword", "keyword")
    assert found["max_body"] == (2048, "WHEREBY_TRIGGER_MAX_BODY")
    assert found["store"] == ("sqlite:///whereby-trigger.db", "default")


def test_secrets_are_masked_wherever_they_come_from(call: Call, tmp_path: Path) -> None:
    dsn = "postgresql://user:hush-2@db.example/webhooks"
    write(tmp_path, SETS_PATH_AND_SECRET)
    for arguments in ([], ["--secret", "hush-3", "--secret", "hush-4"]):
        for form in ([], ["--json"]):
            shown = call("config", *arguments, *form, env={"WHEREBY_TRIGGER_STORE": dsn})
            assert shown.returncode == 0
            assert "hush" not in shown.stdout + shown.stderr
    assert settings(call, "--secret", "hush-3", "--secret", "hush-4")["secret"] == ("2 set", "command line")


def test_for_people_it_is_a_table_and_warnings_go_to_standard_error(call: Call) -> None:
    ended = call("config", "--port", "4000", env={"PORT": "3000"})
    header, port, *_ = ended.stdout.splitlines()
    assert header.split() == ["setting", "value", "from"]
    assert port.split(maxsplit=2) == ["port", "4000", "command line"]
    assert ended.stderr == "Warning: PORT is 3000 in the environment, but the command line says 4000: using that\n"
    table = call("config", env={"PORT": "3000"}).stdout
    assert "PORT in the environment" in table
    assert "604800 " in table
