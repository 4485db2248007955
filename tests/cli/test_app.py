"""APP: how a program is named, found and imported, and the errors if that fails."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.support.programs import write

ONE = "from whereby_trigger import Trigger\ntrigger = Trigger(subdomain='one')\n"


def subdomain(call: Call, *arguments: str) -> str:
    """Return the setting that shows which program was found."""
    ended = call("config", "--json", *arguments)
    assert ended.returncode == 0, ended.stderr
    settings = {fields["name"]: fields["value"] for fields in map(json.loads, ended.stdout.splitlines())}
    return str(settings["subdomain"])


@pytest.mark.parametrize("name", ["app.py", "main.py", "trigger.py"])
def test_a_program_that_is_not_named_is_found(tmp_path: Path, call: Call, name: str) -> None:
    write(tmp_path, ONE, name)
    assert subdomain(call) == "one"


def test_of_several_default_names_app_comes_first(tmp_path: Path, call: Call) -> None:
    write(tmp_path, ONE.replace("one", "other"), "main.py")
    write(tmp_path, ONE, "app.py")
    assert subdomain(call) == "one"


def test_a_file_finds_the_modules_beside_it(tmp_path: Path, call: Call) -> None:
    write(tmp_path, "NAME = 'one'", "deep/names.py")
    write(tmp_path, "import names\nfrom whereby_trigger import Trigger\nt = Trigger(subdomain=names.NAME)", "deep/p.py")
    assert subdomain(call, "deep/p.py") == "one"


@pytest.mark.parametrize("app", ["package.inner:trigger", "package.inner", "package.inner:holder.trigger"])
def test_a_module_is_found_from_the_current_folder(tmp_path: Path, call: Call, app: str) -> None:
    source = f"{ONE}class Holder:\n    trigger = trigger\nholder = Holder()\n"
    write(tmp_path, source, "package/inner.py")
    assert subdomain(call, app) == "one"


def test_of_several_triggers_one_is_named(tmp_path: Path, call: Call) -> None:
    write(tmp_path, f"{ONE}second = Trigger(subdomain='two')\n")
    ended = call("start")
    assert ended.returncode == 2
    assert "app.py defines 2 Triggers: name one, e.g. app.py:trigger" in ended.stderr
    assert subdomain(call, "app.py:second") == "two"


def test_one_trigger_under_two_names_is_one(tmp_path: Path, call: Call) -> None:
    write(tmp_path, f"{ONE}alias = trigger\n")
    assert subdomain(call) == "one"


def test_a_program_without_a_trigger_is_told_how_to_make_one(tmp_path: Path, call: Call) -> None:
    write(tmp_path, "def main():\n    from whereby_trigger import Trigger\n    Trigger()\n")
    ended = call("start")
    assert ended.returncode == 2
    assert "app.py defines no Trigger: create one outside of any function" in ended.stderr


FAILURES = {
    "import nowhere_to_be_found\n": (
        "ModuleNotFoundError: No module named 'nowhere_to_be_found'",
        "app.py, line 1: import nowhere_to_be_found",
    ),
    "x = 1\nx = = 2\n": ("SyntaxError: invalid syntax", "app.py, line 2: x = = 2"),
    "def fruit():\n    raise LookupError('no such fruit')\nfruit()\n": (
        "LookupError: no such fruit",
        "app.py, line 2: raise LookupError('no such fruit')",
    ),
    "import json\njson.loads('{')\n": ("JSONDecodeError", "app.py, line 2: json.loads('{')"),
    "raise SystemExit('enough')\n": ("SystemExit: enough", "app.py, line 1: raise SystemExit('enough')"),
    "from whereby_trigger import Trigger\ntrigger = Trigger(secret='')\n": (
        "ConfigError: secret holds a blank secret",
        "app.py, line 2: trigger = Trigger(secret='')",
    ),
    "import asyncio, whereby_trigger\nasyncio.run(whereby_trigger.Trigger().serve())\n": (
        "LifecycleError: the command line imports this program and serves it itself",
        "app.py, line 2: asyncio.run(whereby_trigger.Trigger().serve())",
    ),
    "from whereby_trigger import Trigger\nTrigger().when('room.client.join')(print)\n": (
        "RegistrationError: there is no webhook type 'room.client.join': did you mean 'room.client.joined'?",
        "app.py, line 2: Trigger().when('room.client.join')(print)",
    ),
}


@pytest.mark.parametrize("source", FAILURES)
def test_a_program_that_does_not_import_is_shown_where_it_fails(tmp_path: Path, call: Call, source: str) -> None:
    what, where = FAILURES[source]
    write(tmp_path, source)
    ended = call("start")
    assert ended.returncode == 2
    first, second, third = ended.stderr.splitlines()
    assert first.startswith(f"Error: app.py cannot be imported: {what}")
    assert second == f"  {where}"
    assert third == f"`python {tmp_path / 'app.py'}` shows the whole traceback"


def test_an_import_that_fails_in_a_module_of_the_users_is_shown_there(tmp_path: Path, call: Call) -> None:
    write(tmp_path, "def broken():\n    return {}['fruit']\n", "helpers.py")
    write(tmp_path, "import helpers\nhelpers.broken()\n")
    assert "  helpers.py, line 2: return {}['fruit']\n" in call("start").stderr


def test_what_a_program_prints_while_it_is_imported_stays_out_of_the_output(tmp_path: Path, call: Call) -> None:
    write(tmp_path, f"{ONE}trigger.start()\nprint('after start')\n")
    ended = call("config", "--json")
    assert json.loads(ended.stdout.splitlines()[0])["name"] == "port"
    assert ended.stderr == "after start\n"
