"""The systemd unit, checked by systemd."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.manifests import UNIT, unit
from tests.support.process import COMMAND
from whereby_trigger.cli.output import WRONG_CALL

SYSTEMD = shutil.which("systemd-analyze")
MOST_EXPOSED = 20
"""A tenth of what `systemd-analyze security` calls OK; a server without any hardening has 96."""

with_systemd = pytest.mark.skipif(SYSTEMD is None, reason="systemd-analyze is missing: apt-get install systemd")


def complaints(unit: Path) -> list[str]:
    """List what systemd finds wrong with this unit, without what it finds about others on this machine."""
    done = analyze("verify", unit)
    return [line for line in (done.stdout + done.stderr).splitlines() if unit.name in line]


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    assert SYSTEMD is not None
    return subprocess.run([SYSTEMD, *arguments], capture_output=True, text=True, check=False)


@with_systemd
def test_systemd_reads_the_unit_without_a_complaint(tmp_path: Path) -> None:
    """Use the command line of this environment, since systemd looks for what it would start."""
    installed = tmp_path / UNIT.name
    installed.write_text(UNIT.read_text().replace(unit()["ExecStart"][0].split()[0], COMMAND))
    assert complaints(installed) == []
    installed.write_text(installed.read_text().replace("KillMode=mixed", "KillMode=main"))
    assert len(complaints(installed)) == 1


@with_systemd
def test_systemd_finds_little_that_the_unit_leaves_open() -> None:
    done = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", UNIT)
    assert done.returncode == 0, done.stdout


def test_the_trigger_alone_is_told_to_end_and_a_wrong_setting_is_not_tried_again() -> None:
    service = unit()
    assert service["KillMode"] == ["mixed"]
    assert service["Restart"] == ["on-failure"]
    assert str(WRONG_CALL) in service["RestartPreventExitStatus"][0].split()
