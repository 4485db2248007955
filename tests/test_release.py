"""A release: what the package index shows, the changelog's section, the workflow, and the sdist's own tests."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from scripts.package_metadata import LINK, readme_elsewhere
from scripts.release_notes import NotReady, main, release_notes
from tests.support.markdown import FENCE
from tests.support.process import clean_environment

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
VERSION = PYPROJECT["project"]["version"]
REPOSITORY = "https://code.example/acme/whereby-trigger"
WORKFLOW = ROOT / ".github" / "workflows" / "release.yaml"
TARGET = re.compile(r"\]\(([^)\s]+)\)")


def build(target: str, folder: Path, **env: str) -> Path:
    """Build the wheel or the sdist into a folder."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=clean_environment(env))
    (built,) = folder.glob("*")
    return built


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_bytes(archive.read(name))


def links(description: object) -> list[str]:
    return TARGET.findall(FENCE.sub("", str(description)))


def test_without_a_repository_the_package_names_no_url_and_its_readme_has_no_link_that_is_dead(tmp_path: Path) -> None:
    metadata = metadata_of(build("wheel", tmp_path))
    assert metadata["Version"] == VERSION
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_all("Project-URL") is None
    assert links(metadata.get_payload()) == []
    assert "Many machines (`docs/scaling.md`)" in str(metadata.get_payload())


def test_with_its_repository_the_readmes_links_lead_to_the_files_of_the_release(tmp_path: Path) -> None:
    metadata = metadata_of(build("wheel", tmp_path, PROJECT_REPOSITORY=f"{REPOSITORY}/"))
    assert f"Repository, {REPOSITORY}" in (metadata.get_all("Project-URL") or [])
    found = links(metadata.get_payload())
    assert found
    for link in found:
        kind, tag, path = link.removeprefix(f"{REPOSITORY}/").split("/", 2)
        assert (kind, tag) in (("blob", f"v{VERSION}"), ("raw", f"v{VERSION}"))
        assert (ROOT / path.partition("#")[0]).is_file()


def test_a_repository_that_is_no_https_address_fails_the_build(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        build("wheel", tmp_path, PROJECT_REPOSITORY="git@code.example:acme/whereby-trigger")
    assert b"write the https address" in failed.value.stderr


@pytest.mark.parametrize("repository", ["", REPOSITORY])
def test_code_and_absolute_links_of_a_readme_stay_as_they_are(repository: str) -> None:
    text = "[here](https://whereby.example/a) and [below](#states)\n\n```python\nrun[0](docs)\n```\n"
    assert readme_elsewhere(text, repository, "v1") == text


def test_the_readme_has_links_to_make_absolute() -> None:
    assert len(LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))) > 10


CHANGELOG = """# Changelog

## [Unreleased]

- later

## [0.2.0] - 2026-12-01

### Added

- a [page](docs/hosts.md)

## [0.1.0] - 2026-11-01

- first
"""


def test_the_changelogs_section_of_a_version_is_the_releases_text() -> None:
    assert release_notes(CHANGELOG, "0.2.0") == "### Added\n\n- a [page](docs/hosts.md)\n"
    assert release_notes(CHANGELOG, "0.1.0") == "- first\n"


@pytest.mark.parametrize("version", ["Unreleased", "0.3.0", "0x2.0"])
def test_a_version_without_a_section_cannot_be_released(version: str) -> None:
    with pytest.raises(NotReady, match="no section"):
        release_notes(CHANGELOG, version)


def test_a_tag_of_another_version_cannot_be_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "0.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    monkeypatch.setenv("PROJECT_REPOSITORY", REPOSITORY)
    assert f"[page]({REPOSITORY}/blob/v0.2.0/docs/hosts.md)" in main(["v0.2.0"], tmp_path)
    with pytest.raises(NotReady, match=r"tag it v0\.2\.0"):
        main(["v0.3.0"], tmp_path)


def test_the_changelog_is_in_the_form_that_the_release_reads() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading) for heading in headings[1:])


def test_the_version_is_written_in_one_place() -> None:
    written = re.compile(rf"__version__|[\"']{re.escape(VERSION)}[\"']")
    sources = [path for folder in ("src", "deploy", "scripts") for path in (ROOT / folder).rglob("*.py")]
    assert [path for path in sources if written.search(path.read_text(encoding="utf-8"))] == []
    shown = subprocess.run([sys.executable, "-m", "whereby_trigger", "--version"], check=True, capture_output=True)
    assert shown.stdout.split()[-1] == VERSION.encode()


def test_the_build_backend_has_an_upper_bound() -> None:
    for requirement in map(Requirement, PYPROJECT["build-system"]["requires"]):
        assert any(bound.operator == "<" for bound in requirement.specifier), requirement
    assert set(PYPROJECT["build-system"]["requires"]) <= set(PYPROJECT["dependency-groups"]["build"])


def test_the_workflow_of_a_release_is_valid_and_runs_by_hand_alone() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(WORKFLOW)]
    subprocess.run(check, check=True, capture_output=True)
    workflow = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    # YAML 1.1 reads `on` as true.
    assert list(workflow[True]) == ["workflow_dispatch"]
    jobs = workflow["jobs"]
    assert workflow["permissions"] == {}
    assert [name for name, job in jobs.items() if "id-token" in job["permissions"]] == ["publish"]
    assert jobs["publish"]["if"] == "inputs.publish"
    steps = [step["run"] for step in jobs["build"]["steps"] if "run" in step]
    assert "make dist" in steps
    assert any("scripts/release_notes.py" in step for step in steps)


def test_some_of_the_sdists_own_tests_pass_from_its_unpacked_folder(tmp_path: Path) -> None:
    """`make dist SDIST_TESTS="-q"` runs all of them, in their own environment."""
    # Not by tarfile: Python 3.11.2, Debian 12's, has no filter yet, and later versions warn without one.
    subprocess.run(["tar", "-xzf", build("sdist", tmp_path / "built"), "-C", tmp_path], check=True)
    folder = tmp_path / f"whereby_trigger-{VERSION}"
    code = "import whereby_trigger; print(whereby_trigger.__file__)"
    env = clean_environment({"PYTHONPATH": os.pathsep.join([str(folder / "src"), str(folder)])})
    found = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True).stdout
    assert Path(found.strip()).is_relative_to(folder)
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", "tests/webhook/test_room.py"]
    done = subprocess.run(run, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
