"""What is installed, what is shipped, and what the import costs."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections import Counter
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PIN_FILES = sorted((ROOT / "requirements").glob("*.txt"))
PIN = re.compile(r"[a-z0-9.-]+==[\w.]+( ; [^;]+)? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?")


def applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def base_install(package: str = "whereby-trigger") -> set[str]:
    """Return all packages installed with a package, including itself, on this platform."""
    found: set[str] = set()
    waiting = [package]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            needs = filter(applies, map(Requirement, requires(name) or ()))
            waiting += [canonicalize_name(need.name) for need in needs]
    return found


def pins(path: Path) -> dict[str, str]:
    """Read the versions that a pin file sets for the platform of this test run."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [Requirement(line.removesuffix(" \\")) for line in lines if PIN.fullmatch(line)]
    return {pin.name: str(pin.specifier).removeprefix("==") for pin in found if applies(pin)}


def test_the_base_install_is_at_most_20_packages() -> None:
    assert len(base_install()) <= 20, sorted(base_install())


def test_the_base_pins_are_what_a_base_install_brings() -> None:
    assert pins(ROOT / "requirements/base.txt").keys() == base_install() - {"whereby-trigger"}


def test_the_postgres_pins_are_the_base_pins_and_what_its_extra_brings() -> None:
    base, postgres = (pins(ROOT / f"requirements/{name}.txt") for name in ("base", "postgres"))
    assert base.items() <= postgres.items()
    assert postgres.keys() == base.keys() | base_install("asyncpg")


def test_the_pins_keep_to_the_declared_ranges() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["postgres"]]
    declared += project["optional-dependencies"]["dev"]
    pinned = pins(ROOT / "requirements/test.txt")
    for requirement in map(Requirement, declared):
        assert requirement.specifier.contains(pinned[requirement.name]), f"{requirement}: run make pins"


@pytest.mark.parametrize("path", PIN_FILES, ids=lambda path: path.stem)
def test_every_pin_is_exact_and_hashed_and_names_no_place_to_get_it_from(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    strange = [line for line in lines if not PIN.fullmatch(line) and not HASH.fullmatch(line)]
    assert lines
    assert not strange


def test_the_wheel_carries_every_file_of_the_package(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    source = ROOT / "src"
    files = (path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert shipped == {path.relative_to(source).as_posix() for path in files}
    assert "whereby_trigger/py.typed" in shipped


def test_the_sdist_carries_every_file_of_the_repository(tmp_path: Path) -> None:
    """Tests run from it as they do from a clone."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone: the files of the repository are not known")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    build = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        shipped = {name.partition("/")[2] for name in archive.getnames()}
    assert set(listed.removesuffix("\0").split("\0")) - shipped == set()


def test_importing_the_package_takes_under_150_ms(tmp_path: Path) -> None:
    """In CPU time, and with the compiled files that an installed package has.

    Other processes take caches and cycles from it, and from the import of asyncio too, which is 40 ms of it.
    """
    code = "import time; t = time.process_time(); import {}; print(time.process_time() - t)"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(tmp_path)

    def seconds(module: str) -> float:
        command = [sys.executable, "-c", code.format(module)]
        return float(subprocess.run(command, check=True, capture_output=True, env=env).stdout)

    assert any(seconds("whereby_trigger") < max(0.150, 4 * seconds("asyncio")) for _ in range(30))


def test_importing_the_package_imports_no_server_no_terminal_and_no_metrics_client() -> None:
    code = "import sys, whereby_trigger; print(*{name.partition('.')[0] for name in sys.modules})"
    imported = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    lazy = {"uvicorn", "starlette", "httptools", "uvloop", "click", "rich", "prometheus_client"}
    assert lazy.isdisjoint(imported)


def test_importing_the_package_does_not_import_its_testing_module() -> None:
    code = "import sys, whereby_trigger; print(*(name for name in sys.modules if 'testing' in name.split('.')))"
    imported = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert imported == []


def test_no_two_classes_of_the_package_share_a_name() -> None:
    sources = (ROOT / "src").rglob("*.py")
    names = [name for file in sources for name in re.findall(r"^class (\w+)", file.read_text("utf-8"), re.MULTILINE)]
    assert [name for name, count in Counter(names).items() if count > 1] == []
