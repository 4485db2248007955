"""The Compose file: from nothing to a running stack by the page's commands, and a rolling deploy under load."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from scripts.containers.page import PAGE, commands, type_all
from scripts.containers.podman import ROOT, CheckFailed, deliver, hold, logs, podman, run, succeeds, until
from whereby_trigger.config import foreign_environment
from whereby_trigger.testing import webhook

COMMANDS = 10
REPLICAS = ("replica-1", "replica-2")
URL = "http://127.0.0.1/"
LONG = tuple(f"/long-{number}" for number in range(6))
DRAIN = 5
OVERRIDE = (
    "services:\n"
    + "".join(f'  {name}: {{environment: {{WHEREBY_TRIGGER_DRAIN_TIMEOUT: "{DRAIN}"}}}}\n' for name in REPLICAS)
    + "  balancer: {depends_on: !reset []}\n"
)
"""What differs from compose.yaml.

A meeting is handed over after seconds, and not after nine minutes. And the balancer depends on no replica:
podman-compose takes down what depends on a service that it replaces, so each new replica would cost the balancer a
restart. Docker Compose leaves it running.
"""

LOAD = ("--meetings-per-minute", "90", "--minutes", "60", "--rooms", "12", "--duplicates", "0.05", "--reorder", "0.05")
AFTERWARDS = 100
"""Webhooks that are sent after the deploy."""


class Stack:
    """Hold the clone in which the stack runs, its secrets, and how to reach its store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clone = folder / "clone"
        self.here = self.clone / "deploy/compose"
        self.clone.mkdir()
        tracked = run(
            ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        )
        for name in filter(None, tracked.stdout.split("\0")):
            if (ROOT / name).is_file():
                (self.clone / name).parent.mkdir(parents=True, exist_ok=True)
                (self.clone / name).write_bytes((ROOT / name).read_bytes())
        (self.here / "compose.override.yaml").write_text(OVERRIDE)
        docker = folder / "bin/docker"
        docker.parent.mkdir()
        command = shlex.join([sys.executable, "-m", "scripts.containers.docker", str(folder)])
        docker.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {command} "$@"\n')
        docker.chmod(0o755)
        self.path = os.pathsep.join((str(docker.parent), foreign_environment()["PATH"]))

    @property
    def secret(self) -> str:
        """The webhook's secret that the page has made up."""
        return (self.here / "secrets/webhook-secret").read_text().strip()

    @property
    def store(self) -> str:
        """The store's URL, with the database's address in place of its name, which only containers know."""
        named = (self.here / "secrets/store-url").read_text().strip()
        address = podman(
            "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container("database")
        )
        return named.replace("@database:", f"@{address}:")

    def docker(self, *arguments: str, within: float = 300.0) -> str:
        """Run `docker`, as the page's commands do, and return what it prints."""
        return run(["docker", *arguments], cwd=self.here, env={"PATH": self.path}, within=within).stdout

    def trigger(self, *arguments: str) -> list[dict[str, Any]]:
        """Run the command line of this repository on the stack's store; return the objects that it prints."""
        command = [str(self.folder / "whereby-trigger"), *arguments, "--store", self.store, "--json"]
        return [json.loads(line) for line in run(command, cwd=self.folder).stdout.splitlines()]

    def all_attended(self) -> dict[str, dict[str, Any]]:
        """Return the entries of the long meetings' rooms, by name; nothing if one has no assistant now."""
        live = self.trigger("assistants", "list", "--state", "live", "--limit", "1000")
        by_name = {f"/{entry['room'].rpartition('/')[2]}": entry for entry in live}
        return {name: by_name[name] for name in LONG} if by_name.keys() >= set(LONG) else {}


def container(service: str) -> str:
    """Return the container of a service."""
    name = podman("ps", "--quiet", "--filter", f"label=com.docker.compose.service={service}")
    if not name:
        raise CheckFailed(f"no container of {service} runs:\n{podman('ps', '--all')}")
    return name


def check(folder: Path) -> None:
    """Run the page's commands, then a deploy of both replicas under load."""
    stack = Stack(folder)
    try:
        quick_start(stack)
        deploy(stack)
    except CheckFailed:
        for name in podman("ps", "--all", "--format", "{{.Names}}").split():
            print(f"  --- the last lines of {name}", *logs(name).splitlines()[-8:], sep="\n  | ")
        raise
    finally:
        stack.docker("compose", "down", "--volumes", "--timeout", "10")


def quick_start(stack: Stack) -> None:
    """Run the commands of the page, and check what the last ones print."""
    typed = commands(PAGE.read_text())
    hold("the page has ten commands", true=len(typed) == COMMANDS, seen=len(typed))
    said = type_all(typed, stack.clone, stack.path)
    for one in said:
        print(f"        {one.seconds:6.1f} s  $ {one.command}")
    last = said[-1]
    hold("each of them succeeds", true=last.code == 0 and len(said) == COMMANDS, seen=last.output if last.code else "")
    *_, up, send, rooms = said
    running = sum(one.seconds for one in said[: said.index(up) + 1])
    hold("from nothing to a running stack", true=True, seen=f"{running:.0f} s, the build included")
    hold("the test webhook is decided", true="fired" in send.output, seen=send.output.strip().splitlines()[-1])
    hold("the other replica lists its room", true="/visit-1" in rooms.output and "live" in rooms.output)
    healthy = [name for name in (*REPLICAS, "database") if succeeds("healthcheck", "run", container(name))]
    hold("two replicas and a PostgreSQL are healthy", true=len(healthy) == 3, seen=", ".join(healthy))


def deploy(stack: Stack) -> None:
    """Replace one replica after the other under load, and check that nothing is lost and each meeting is attended."""
    for room in LONG:
        if deliver(URL, webhook("room.client.joined", room=room), stack.secret) != 200:
            raise CheckFailed(f"no 200 for {room}")
    before = until("each long meeting has an assistant", stack.all_attended)
    owners = {entry["owner"] for entry in before.values()}
    hold("both replicas attend meetings", true=len(owners) == len(REPLICAS), seen=f"{len(LONG)} long meetings")
    old = {name: container(name) for name in REPLICAS}
    report = under_load(stack)
    hold("both replicas are new", true=not old.items() & {name: container(name) for name in REPLICAS}.items())
    hold(
        "nothing is lost",
        true=not (report["missing"] or report["given_up"] or report["wrong"]),
        seen=f"{report['sent']} webhooks sent, {report['acknowledged']} different ones acknowledged, "
        f"{report['retried']} retried, {report['given_up']} given up, "
        f"{len(report['missing'])} of the acknowledged not stored; "
        f"answered within {report['ms']['p50']:g} ms (half) and {report['ms']['max']:g} ms (all)",
    )
    until("nothing is pending", lambda: not stack.trigger("events", "list", "--state", "pending"))
    after = until("each long meeting is attended", stack.all_attended)
    moved = [name for name in LONG if after[name]["owner"] != before[name]["owner"]]
    hold(
        "each long meeting was handed over to a new replica",
        true=len(moved) == len(LONG) and not owners & {entry["owner"] for entry in after.values()},
        seen=", ".join(f"{name} has attempt {after[name]['attempt']}" for name in LONG),
    )
    pauses = [pause for name in LONG for pause in pauses_of(stack, name)]
    hold("a hand-over is short", true=max(pauses) < 15, seen=f"{len(pauses)}, {min(pauses):.1f} to {max(pauses):.1f} s")


def under_load(stack: Stack) -> dict[str, Any]:
    """Simulate meetings through the balancer while both replicas are replaced; return the report of what was sent."""
    store = stack.store
    program = (str(stack.folder / "whereby-trigger"), "simulate", URL)
    command = [*program, *LOAD, "--secret", stack.secret, "--store", store, "--json"]
    with (stack.folder / "simulate.log").open("w+") as log, (stack.folder / "report.json").open("w+") as report:
        load = subprocess.Popen(command, cwd=stack.folder, env=foreign_environment(), stdout=report, stderr=log)
        try:
            until("webhooks come in", lambda: stored(stack) > AFTERWARDS)
            for name in REPLICAS:
                began = time.monotonic()
                stack.docker("compose", "up", "--detach", "--wait", "--no-deps", "--force-recreate", name)
                print(f"        {time.monotonic() - began:6.1f} s  {name} is replaced")
            now = stored(stack)
            until("more webhooks come in", lambda: stored(stack) > now + AFTERWARDS)
        finally:
            load.send_signal(signal.SIGINT)
            load.wait(60)
        report.seek(0)
        log.seek(0)
        text = report.read()
        if not text.startswith("{"):
            raise CheckFailed(f"the simulation has no report: {log.read()}")
    return dict(json.loads(text))


def stored(stack: Stack) -> int:
    """Return how many webhooks the store has, up to 10,000."""
    return len(stack.trigger("events", "list", "--limit", "10000"))


def pauses_of(stack: Stack, room: str) -> list[float]:
    """Return for how many seconds a room was without an assistant between two runs, each time."""
    (shown,) = stack.trigger("assistants", "show", f"https://acme.whereby.com{room}")
    runs = sorted(shown["runs"], key=lambda one: one["attempt"])
    moments = [
        (datetime.fromisoformat(one["ended_at"]), datetime.fromisoformat(other["live_at"]))
        for one, other in pairwise(runs)
    ]
    return [(live - ended).total_seconds() for ended, live in moments]
