"""The Compose file and the manifests, checked against the schemas of the programs that read them."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.deploy.manifests import COMPOSE, KUBERNETES, documents

PROGRAMS = Path(sys.executable).parent
OLDEST, NEWEST = "1.30", "1.37"


def compose_schema_takes(path: Path) -> subprocess.CompletedProcess[str]:
    command = [str(PROGRAMS / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def kubernetes_takes(version: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    command = [str(PROGRAMS / "kubernetes-validate"), "--strict", "-k", version, *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_compose_file_keeps_to_the_schema_of_the_compose_specification(tmp_path: Path) -> None:
    done = compose_schema_takes(COMPOSE)
    assert done.returncode == 0, done.stdout + done.stderr
    (compose,) = documents(COMPOSE)
    compose["services"]["replica-1"]["stop_grace"] = "10m"
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(compose))
    assert "stop_grace" in compose_schema_takes(tmp_path / "compose.yaml").stdout


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_the_manifests_keep_to_the_schemas_of_kubernetes(version: str) -> None:
    done = kubernetes_takes(version, *KUBERNETES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" passed ") == sum(len(documents(path)) for path in KUBERNETES)


def test_a_field_that_kubernetes_does_not_know_would_be_found(tmp_path: Path) -> None:
    for path in KUBERNETES:
        (wrong,) = documents(path)
        wrong["metadata"]["lables"] = {}
        (tmp_path / path.name).write_text(yaml.safe_dump(wrong))
        assert kubernetes_takes(NEWEST, tmp_path / path.name).returncode != 0
