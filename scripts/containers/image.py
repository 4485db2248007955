"""The image of deploy/Dockerfile: built, run as its own comment says, and stopped."""

import json
import threading
import time
from pathlib import Path

from scripts.containers.podman import BUILD_WITHIN, ROOT, deliver, hold, logs, podman, run, status, succeeds, until
from whereby_trigger.testing import webhook

IMAGE = "whereby-trigger:1"
NAME = "checked-image"
SECRET = "the secret of the container"  # noqa: S105 - nobody else uses it
URL = "http://127.0.0.1:8080/"
USER = "10001"
DELIVERIES = 50


def build(network: Path) -> float:
    """Build the image with the machine's network, as `docker build` does; return the seconds that it took."""
    began = time.monotonic()
    command = ["podman", "build", "--tag", IMAGE, "--file", "deploy/Dockerfile", "."]
    run(["nsenter", f"--net={network}", *command], cwd=ROOT, within=BUILD_WITHIN)
    return time.monotonic() - began


def check(folder: Path) -> None:
    """Build the image, and check a container's rights, deliveries, health and stop."""
    took = build(folder / "network")
    hold("the image is built from deploy/Dockerfile", true=succeeds("image", "exists", IMAGE), seen=f"{took:.0f} s")
    began = time.monotonic()
    podman(
        *("run", "--detach", "--name", NAME, "--publish", "8080:8080", "--volume", "webhooks:/var/lib/whereby-trigger"),
        *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--env", "WHEREBY_WEBHOOK_SECRET", "--env", "WHEREBY_TRIGGER_DRAIN_TIMEOUT=120", "--stop-timeout", "140"),
        IMAGE,
        env={"WHEREBY_WEBHOOK_SECRET": SECRET},
    )
    until("it is ready", lambda: status(f"{URL}readyz") == 200)
    hold("it is ready at /readyz", true=True, seen=f"{time.monotonic() - began:.1f} s after podman run began")
    hold("its HEALTHCHECK finds it healthy", true=succeeds("healthcheck", "run", NAME))
    check_rights()
    room = take_deliveries()
    drain(room)
    podman("rm", "--force", NAME)


def check_rights() -> None:
    """Check the user of each process, its capabilities, and that its root is read-only."""
    users = {line.split()[0] for line in podman("top", NAME, "huser", "args").splitlines()[1:]}
    hold("no process of it is root", true=users == {USER}, seen=f"user {', '.join(sorted(users))}")
    held = podman("exec", NAME, "sh", "-c", "grep -E 'CapEff|NoNewPrivs' /proc/1/status").split()
    hold("it has no capability and gains none", true=held == ["CapEff:", "0" * 16, "NoNewPrivs:", "1"])
    refused = run(["podman", "exec", NAME, "touch", "/srv/whereby-trigger/new"], check=False)
    hold("its root is read-only", true="Read-only file system" in refused.stderr, seen=refused.stderr.strip())


def take_deliveries() -> str:
    """Deliver webhooks, one of which gets an assistant, and check that all are stored; return that one's room."""
    sent = [webhook("room.client.left", room=f"/visit-{number}") for number in range(DELIVERIES - 1)]
    joined = webhook("room.client.joined", room="/visit-long")
    answers = [deliver(URL, one, SECRET) for one in (*sent, joined)]
    hold("it answers deliveries", true=set(answers) == {200}, seen=f"{answers.count(200)} of {DELIVERIES} with 200")
    hold("it refuses a forged one", true=deliver(URL, joined, "another secret") == 401, seen="401")
    events = ("exec", NAME, "whereby-trigger", "events", "list", "/srv/whereby-trigger/app.py", "--json")
    until("the assistant attends its room", lambda: "attending /visit-long" in logs(NAME))
    stored = [json.loads(line) for line in podman(*events, "--limit", "1000").splitlines()]
    hold("it has stored what it answered", true=len(stored) == DELIVERIES, seen=f"{len(stored)} of {DELIVERIES}")
    return "/visit-long"


def drain(room: str) -> None:
    """Stop it during a meeting: it says so, goes on until the meeting ends, and exits with 0."""
    began = time.monotonic()
    stopping = threading.Thread(target=podman, args=("stop", NAME), kwargs={"within": 150.0})
    stopping.start()
    until("it is not ready", lambda: status(f"{URL}readyz") == 503)
    hold("on podman stop it is not ready, and attends its room", true=f"leaving {room}" not in logs(NAME))
    ended = deliver(URL, webhook("room.session.ended", room=room), SECRET)
    stopping.join()
    code = podman("inspect", "--format", "{{.State.ExitCode}}", NAME)
    hold("it takes the end of the meeting", true=ended == 200, seen=ended)
    hold("its assistant leaves", true=f"leaving {room}" in logs(NAME))
    hold("it has drained", true=code == "0", seen=f"exit {code}, {time.monotonic() - began:.1f} s after podman stop")
