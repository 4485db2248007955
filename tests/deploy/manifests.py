"""The files in deploy/, parsed: the replicas they describe, and how each is stopped."""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
APP = DEPLOY / "app.py"
COMPOSE = DEPLOY / "compose/compose.yaml"
OPERATOR = sorted((DEPLOY / "kubernetes/with-prometheus-operator").glob("*.yaml"))
"""Manifests of kinds that only a cluster with the Prometheus Operator knows."""

KUBERNETES = sorted(set((DEPLOY / "kubernetes").rglob("*.yaml")) - set(OPERATOR))
UNIT = DEPLOY / "systemd/whereby-trigger.service"

IMAGE = "whereby-trigger:1"
UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Replica:
    """Describe one replica as a file has it: its settings, and the seconds until it is killed."""

    place: str
    environment: Mapping[str, str]
    killed_after: float
    waits_before: float = 0.0


def documents(path: Path) -> list[dict[str, Any]]:
    """Read the documents of a YAML file."""
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def services() -> dict[str, dict[str, Any]]:
    """Return the Compose file's services by their names."""
    (compose,) = documents(COMPOSE)
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


def manifests(*kinds: str) -> list[dict[str, Any]]:
    """Return the Kubernetes manifests of some kinds, of all files."""
    return [found for path in (*KUBERNETES, *OPERATOR) for found in documents(path) if found["kind"] in kinds]


def workloads() -> list[dict[str, Any]]:
    return manifests("Deployment", "StatefulSet")


def container(workload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the one container of a workload's pods."""
    (found,) = workload["spec"]["template"]["spec"]["containers"]
    return dict(found)


def unit() -> dict[str, list[str]]:
    """Read the unit's [Service] section: the values of each key, of which there can be several."""
    section = UNIT.read_text(encoding="utf-8").partition("[Service]\n")[2].partition("\n[")[0]
    values: dict[str, list[str]] = {}
    for line in section.splitlines():
        if line and not line.startswith("#"):
            key, _, value = line.partition("=")
            values.setdefault(key, []).append(value)
    return values


def replicas() -> Iterator[Replica]:
    """Yield every replica that a file describes."""
    for name, service in services().items():
        if service["image"] == IMAGE:
            yield Replica(name, service["environment"], seconds(service["stop_grace_period"]))
    for workload in workloads():
        pod, own = workload["spec"]["template"]["spec"], container(workload)
        environment = {variable["name"]: variable["value"] for variable in own["env"]}
        sleep = own["lifecycle"]["preStop"]["sleep"]["seconds"]
        yield Replica(workload["kind"], environment, pod["terminationGracePeriodSeconds"], sleep)
    assignments = [word.partition("=") for value in unit()["Environment"] for word in shlex.split(value)]
    yield Replica("unit", {name: value for name, _, value in assignments}, float(unit()["TimeoutStopSec"][0]))


def seconds(duration: str) -> float:
    """Read a duration as Compose writes it, such as 1m30s."""
    return sum(float(number) * UNITS[unit] for number, unit in re.findall(r"([0-9.]+)([smh])", duration))
