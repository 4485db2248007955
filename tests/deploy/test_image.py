"""The image: what its steps install runs as configured."""

import signal
import subprocess
from pathlib import Path

from tests.deploy.dockerfile import instructions
from tests.deploy.image import Image
from tests.support.process import Process
from tests.support.programs import free_port
from tests.support.whereby import SECRET, deliver
from whereby_trigger.testing import webhook

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy/Dockerfile"


def code(image: Image, program: list[str], **settings: str) -> int:
    return subprocess.run(
        program, cwd=image.workdir, env=image.environment | settings, capture_output=True, check=False, timeout=60
    ).returncode


def test_what_the_steps_install_starts_is_healthy_takes_a_delivery_and_drains(tmp_path: Path) -> None:
    image = Image(DOCKERFILE, ROOT, tmp_path)
    settings = {
        "CREDENTIALS_DIRECTORY": str(tmp_path / "nothing"),
        "WHEREBY_WEBHOOK_SECRET": SECRET,
        "WHEREBY_TRIGGER_DRAIN_TIMEOUT": "0",
        "PORT": str(free_port()),
    }
    assert code(image, image.health, **settings) != 0
    with Process(image.command, cwd=image.workdir, env=image.environment | settings) as replica:
        assert replica.port() == int(settings["PORT"])
        assert code(image, image.health, **settings) == 0
        joined = webhook("room.client.joined", room="/visit-1")
        assert deliver(f"http://127.0.0.1:{settings['PORT']}/", joined).status == 200
        replica.line("attending /visit-1")
        assert replica.stop(signal.SIGTERM) == 0, replica.output
        assert "leaving /visit-1" in replica.output
    assert (image.workdir / "whereby-trigger.db").exists()
    assert code(image, ["whereby-trigger", "check", image.command[-1]], **settings) == 0
    for program in ("import asyncpg", "import whereby_trigger"):
        assert code(image, ["python", "-c", program]) == 0
    for builder in ("import pip", "import hatchling"):
        assert code(image, ["python", "-c", builder]) != 0, f"{builder}: what only builds is not for the image"
    assert len(image.skipped) == 1


def test_what_docker_is_sent_is_what_the_steps_copy() -> None:
    ignored, *admitted = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert ignored == "*"
    copied = {word for step in instructions(DOCKERFILE) if step.name == "COPY" for word in step.words[:-1]}
    tops = {
        word if word.startswith(("deploy/", "scripts/")) else word.partition("/")[0]
        for word in copied
        if word[:2] != "--"
    }
    assert {line.removeprefix("!") for line in admitted if line.startswith("!")} == {
        top for top in tops if not top.startswith("/") and top
    }


def test_it_is_stopped_by_the_signal_that_drains_and_runs_as_nobody_else() -> None:
    by_name = {step.name: step.value for step in instructions(DOCKERFILE)}
    assert by_name["STOPSIGNAL"] == "SIGTERM"
    user, group = by_name["USER"].split(":")
    assert user == group
    assert f"--uid {user} " in next(step.value for step in instructions(DOCKERFILE) if "useradd" in step.value)
