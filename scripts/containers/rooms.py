"""A container for each room, by the command in docs/assistants.md: it ends with its room, and with its trigger."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from scripts.containers.image import IMAGE as BASE
from scripts.containers.image import build
from scripts.containers.podman import ROOT, CheckFailed, deliver, hold, podman, run, status, succeeds, until
from whereby_trigger.config import foreign_environment
from whereby_trigger.testing import webhook

PAGE = ROOT / "docs/assistants.md"
IMAGE = "my-assistant"
SECRET = "the secret of the rooms"  # noqa: S105 - nobody else uses it
PORT = 8090
URL = f"http://127.0.0.1:{PORT}/"
ROOMS = ("/visit-1", "/visit-2", "/visit-3")
POLITE = "import os, signal; print(os.environ['WHEREBY_ROOM_URL'], flush=True); signal.pause()"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {POLITE}"
GRACE = 3.0
LEASE = 5.0


def program() -> str:
    """Return the program of the page that starts a container with podman."""
    (found,) = (
        block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "exec podman run" in block
    )
    return str(found)


def check(folder: Path) -> None:
    """Check how containers end: those that leave at SIGTERM, and those that do not."""
    if not succeeds("image", "exists", BASE):
        build(folder / "network")
    here = folder / "rooms"
    here.mkdir()
    (here / "podman_in_rooms.py").write_text(program())
    for kind, code, own in (("leaves at SIGTERM", POLITE, True), ("ignores SIGTERM", DEAF, False)):
        print(f"  a container that {kind}")
        make_image(here, code, with_init=own)
        check_ends(folder, here)


def make_image(here: Path, code: str, *, with_init: bool) -> None:
    """Build the image of an assistant that waits for SIGTERM; without an init, it is process 1."""
    entrypoint = "" if with_init else "ENTRYPOINT []\n"
    (here / "Containerfile").write_text(f"FROM {BASE}\n{entrypoint}CMD {json.dumps(['python', '-c', code])}\n")
    podman("build", "--quiet", "--tag", IMAGE, str(here))


def listed(*options: str) -> list[str]:
    """Return the assistants' containers that podman lists: with `--all`, those that do not run, too."""
    lines = podman("ps", "--format", "{{.ID}} {{.Image}}", *options).splitlines()
    return [line.split()[0] for line in lines if f"/{IMAGE}:" in line]


def containers() -> dict[str, int]:
    """Return the process ids of the assistants' containers, by room, of those that have a process."""
    found = {}
    for name in listed():
        shown = run(["podman", "inspect", "--format", "{{.State.Pid}} {{json .Config.Env}}", name], check=False).stdout
        pid, _, environment = shown.partition(" ")
        rooms = re.findall(r"WHEREBY_ROOM_URL=https://acme\.whereby\.com(/[\w-]+)", environment)
        if rooms and Path(f"/proc/{pid}").exists():
            found[rooms[0]] = int(pid)
    return found


def start(folder: Path, here: Path) -> subprocess.Popen[bytes]:
    """Start the trigger, and wait until it takes deliveries."""
    command = [
        str(folder / "whereby-trigger"),
        "start",
        "podman_in_rooms.py",
        "--host",
        "127.0.0.1",
        "--port",
        str(PORT),
    ]
    settings = ["--stop-grace", str(GRACE), "--lease-ttl", str(LEASE), "--drain-timeout", "0"]
    with (here / "log").open("ab") as log:
        trigger = subprocess.Popen(
            [*command, *settings],
            cwd=here,
            env=foreign_environment() | {"WHEREBY_WEBHOOK_SECRET": SECRET},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    until("the trigger is ready", lambda: status(f"{URL}readyz") == 200)
    return trigger


def gone(pids: Sequence[int], began: float) -> float:
    """Wait until no process of some is left, and return how many seconds that took from `began` on."""
    until("the containers' processes are gone", lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    return time.monotonic() - began


def check_ends(folder: Path, here: Path) -> None:
    """Check that each room has one container, which ends with its session, and with the trigger."""
    trigger = start(folder, here)
    for room in ROOMS:
        if deliver(URL, webhook("room.client.joined", room=room), SECRET) != 200:
            raise CheckFailed(f"no 200 for {room}: {(here / 'log').read_text()}")
    until("a container in each room", lambda: containers().keys() == set(ROOMS))
    first, *others = ROOMS
    there = containers()
    began = time.monotonic()
    deliver(URL, webhook("room.session.ended", room=first), SECRET)
    took = gone([there[first]], began)
    hold("a container ends with its room's session", true=took < GRACE + 5, seen=f"{took:.2f} s")
    hold("the others go on", true=containers().keys() == set(others), seen=f"{len(others)} of {len(others)}")
    began = time.monotonic()
    trigger.kill()
    trigger.wait()
    took = gone([there[room] for room in others], began)
    hold("containers end with a trigger that is killed with -9", true=took < 10, seen=f"{took:.2f} s")
    trigger = start(folder, here)
    until("the rooms have containers again", lambda: containers().keys() == set(others))
    hold("the next start gives their rooms containers again", true=True, seen=", ".join(others))
    again = list(containers().values())
    began = time.monotonic()
    trigger.send_signal(signal.SIGTERM)
    took = gone(again, began)
    code = trigger.wait(60)
    hold("a trigger that stops ends them", true=code == 0 and took < GRACE + 5, seen=f"{took:.2f} s, exit {code}")
    left = listed("--all")
    hold("podman keeps at most one container a room", true=len(left) <= len(ROOMS), seen=len(left))
    for name in left:
        podman("rm", "--force", "--time", "0", name)
    for file in here.glob("whereby-trigger.db*"):
        file.unlink()
