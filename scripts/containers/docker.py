"""`docker` for a machine that has podman: `docker compose` by podman-compose, and all else by podman.

What differs from Docker Compose is here, and not in the files or the page that are run:

- a build has the machine's network, and what runs has one of its own;
- podman 4.3 knows no `compose up --wait`, and without systemd no timer runs a health check: `--wait` runs them;
- podman-compose would build an image that two services share twice at the same time;
- a terminal is for `exec` only if there is one.
"""

import os
import subprocess
import sys
from pathlib import Path

from scripts.containers.podman import podman, succeeds, until

HEALTHY_WITHIN = 300.0
ONE_AT_A_TIME = ("--parallel", "1")
OF_PROJECT = "label=io.podman.compose.project"


def compose(folder: Path, verb: str, arguments: list[str]) -> None:
    """Run one command of Compose by podman-compose; ends this program if it fails."""
    program = str(folder / "podman-compose")
    network = ["nsenter", f"--net={folder / 'network'}"]
    if verb == "up":
        if "--build" in arguments:
            call(*network, program, *ONE_AT_A_TIME, "build")
        call(program, verb, *(word for word in arguments if word not in ("--build", "--wait")))
        if "--wait" in arguments:
            wait_until_healthy()
    elif verb == "build":
        call(*network, program, *ONE_AT_A_TIME, verb, *arguments)
    elif verb == "exec":
        call(program, verb, *([] if sys.stdin.isatty() else ["-T"]), *arguments)
    else:
        call(program, verb, *arguments)


def wait_until_healthy() -> None:
    """Run the health check of each container that has one until it succeeds."""
    for name in podman("ps", "--filter", OF_PROJECT, "--format", "{{.Names}}").split():
        if podman("inspect", "--format", "{{if .Config.Healthcheck}}1{{end}}", name):
            until(f"{name} is healthy", lambda name=name: succeeds("healthcheck", "run", name), HEALTHY_WITHIN)  # type: ignore[misc]


def call(*command: str) -> None:
    """Run a command; exit with its code if it fails."""
    code = subprocess.run(command, check=False).returncode
    if code != 0:
        raise SystemExit(code)


def main(folder: Path, arguments: list[str]) -> None:
    """Run the equivalent of `docker` with these arguments."""
    match arguments:
        case ["compose", verb, *others]:
            compose(folder, verb, others)
        case _:
            os.execvp("podman", ["podman", *arguments])  # noqa: S606 - the same words


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
