"""docs/quickstart-compose.md: ten commands from nothing to a running stack, a test webhook and its decision."""

import faulthandler
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.containers.compose import COMMANDS
from scripts.containers.page import PAGE, commands, type_all
from tests.deploy.dockerfile import instructions
from tests.deploy.manifests import APP, COMPOSE, DEPLOY, IMAGE, ROOT, documents, services
from tests.support.process import clean_environment, run

TYPED = commands(PAGE.read_text(encoding="utf-8"))
STAND_INS = ROOT / "scripts/containers/stand_ins"
ASKED = "WHEREBY_TRIGGER_TEST_CONTAINERS"
NEEDED = ("podman", "runc", "debootstrap", "nsenter")


def test_the_page_has_ten_commands_and_the_last_ones_send_a_webhook_and_list_its_room() -> None:
    assert len(TYPED) == COMMANDS == 10
    *_, send, rooms = TYPED
    assert "whereby-trigger send room.client.joined" in send
    assert "--wait" in send
    assert "whereby-trigger rooms list" in rooms


def test_its_first_commands_write_what_the_stack_and_its_program_take(tmp_path: Path) -> None:
    own = [command for command in TYPED if not command.startswith("docker ")]
    assert [command.split()[0] for command in TYPED[len(own) :]] == ["docker"] * (COMMANDS - len(own))
    shutil.copytree(COMPOSE.parent, tmp_path / "clone/deploy/compose")
    said = type_all(own, tmp_path / "clone", os.environ["PATH"])
    assert [(one.code, one.output) for one in said] == [(0, "")] * len(own)
    here = tmp_path / "clone/deploy/compose"
    (compose,) = documents(COMPOSE)
    assert {f"./secrets/{path.name}" for path in (here / "secrets").iterdir()} == {
        secret["file"] for secret in compose["secrets"].values()
    }
    shown = run("config", str(APP), cwd=tmp_path, env={"CREDENTIALS_DIRECTORY": str(here / "secrets")})
    assert "1 set" in shown.stdout
    assert "@database:5432/trigger" in shown.stdout
    assert (here / ".env").read_text() == "SITE_ADDRESS=:80\n"
    ignored = (here / ".gitignore").read_text().split()
    assert {"secrets/", ".env"} <= set(ignored)


def test_its_commands_name_services_and_files_that_there_are() -> None:
    for command in TYPED:
        words = shlex.split(command)
        if words[:3] == ["docker", "compose", "exec"]:
            assert words[3] in services()
            assert "/srv/whereby-trigger/app.py" in words
        for host in re.findall(r"http://(\w+)", command):
            assert host in services()


def test_the_stand_ins_have_the_names_that_deploy_uses() -> None:
    (base,) = (step.value.partition("=")[2] for step in instructions(DEPLOY / "Dockerfile") if step.name == "ARG")
    used = {base} | {service["image"] for service in services().values()} - {IMAGE}
    named = {
        re.findall(r"docker\.io/library/(\S+),", file.read_text())[0] for file in STAND_INS.glob("*.Containerfile")
    }
    assert named == used


def test_podman_runs_the_commands_and_a_rolling_deploy_loses_nothing() -> None:
    if os.environ.get(ASKED) != "1":
        pytest.skip(f"takes many minutes: {ASKED}=1, or make containers")
    if os.geteuid() != 0:
        pytest.skip("only root can run containers")
    for tool in NEEDED:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing: apt-get install podman runc netavark aardvark-dns debootstrap")
    # It takes longer than the limit for a hanging test; each step of it has a timeout of its own.
    faulthandler.cancel_dump_traceback_later()
    done = subprocess.run(
        [ROOT / "scripts/containers.sh"], env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
