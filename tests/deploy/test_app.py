"""The program that the files of deploy/ run: its credentials are files, or variables if there are no files."""

import json
import shutil
from pathlib import Path

import pytest

from tests.deploy.manifests import APP
from tests.support.process import Process, run, whereby_trigger
from tests.support.whereby import deliver
from whereby_trigger.testing import webhook


def config(folder: Path, **environment: str) -> dict[str, tuple[str, str]]:
    """Return the value of each setting, as shown, and its source."""
    done = run("config", str(APP), "--json", cwd=folder, env={"CREDENTIALS_DIRECTORY": str(folder), **environment})
    assert done.returncode == 0, done.stderr
    rows = map(json.loads, done.stdout.splitlines())
    return {row["name"]: (row["value"], row["source"]) for row in rows}


def test_credentials_come_from_the_files_that_a_platform_mounts(tmp_path: Path) -> None:
    (tmp_path / "webhook-secret").write_text("one,two\n")
    (tmp_path / "store-url").write_text("sqlite:///mounted.db\n")
    settings = config(tmp_path, WHEREBY_WEBHOOK_SECRET="three", WHEREBY_TRIGGER_STORE="sqlite:///other.db")
    assert settings["secret"] == ("2 set", "keyword")
    assert settings["store"] == ("sqlite:///mounted.db", "keyword")


def test_without_files_they_come_from_the_environment(tmp_path: Path) -> None:
    settings = config(tmp_path, WHEREBY_WEBHOOK_SECRET="one", WHEREBY_TRIGGER_STORE="sqlite:///other.db")
    assert settings["secret"] == ("1 set", "WHEREBY_WEBHOOK_SECRET")
    assert settings["store"] == ("sqlite:///other.db", "WHEREBY_TRIGGER_STORE")


@pytest.mark.parametrize("name", ["webhook-secret", "store-url"])
def test_a_blank_file_is_no_credential_and_no_permission(tmp_path: Path, name: str) -> None:
    (tmp_path / "webhook-secret").write_text("one")
    (tmp_path / name).write_text("\n")
    refused = run("start", str(APP), cwd=tmp_path, env={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert refused.returncode == 2
    assert "blank" in refused.stderr


def test_an_assistant_goes_on_while_nobody_knows_how_many_people_there_are(tmp_path: Path) -> None:
    (tmp_path / "webhook-secret").write_text("the secret")
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path), "WHEREBY_TRIGGER_DRAIN_TIMEOUT": "0"}
    with Process(whereby_trigger("start", str(APP), "--port", "0"), cwd=tmp_path, env=environment) as replica:
        url = f"http://127.0.0.1:{replica.port()}/"
        assert deliver(url, webhook("assistant.requested", room="/visit-1"), "the secret").status == 200
        replica.line("attending /visit-1")
        assert deliver(url, webhook("room.client.knocked", room="/visit-1"), "the secret").status == 200
        replica.line("room.client.knocked in /visit-1, people there: unknown")
        counted = webhook("room.client.left", room="/visit-1", num_clients_by_role_name={"host": 1})
        assert deliver(url, counted, "the secret").status == 200
        replica.line("room.client.left in /visit-1, people there: 1")
        assert replica.stop() == 0
        assert "TypeError" not in replica.output


@pytest.mark.skipif(shutil.which("tini") is None, reason="tini is missing: apt-get install tini")
def test_below_the_init_of_the_image_a_term_drains_and_the_exit_code_comes_through(tmp_path: Path) -> None:
    (tmp_path / "webhook-secret").write_text("the secret")
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path), "WHEREBY_TRIGGER_DRAIN_TIMEOUT": "0"}
    program = ["tini", "-s", "--", *whereby_trigger("start", str(APP), "--port", "0")]
    with Process(program, cwd=tmp_path, env=environment) as replica:
        url = f"http://127.0.0.1:{replica.port()}/"
        assert deliver(url, webhook("room.client.joined", room="/visit-1"), "the secret").status == 200
        replica.line("attending /visit-1")
        assert replica.stop() == 0
        assert "leaving /visit-1: the replica is draining" in replica.output
    refused = ["tini", "-s", "--", *whereby_trigger("start", str(APP), "--drain-timeout", "never")]
    with Process(refused, cwd=tmp_path, env=environment) as replica:
        assert replica.wait() == 2
