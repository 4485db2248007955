"""The clock that row 15 sets off: the time of day is wrong, and jumps; the clock of the leases is not."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reliability.conditions import Skew
from reliability.tools import ToolMissing
from whereby_trigger.clock import boot_time

ROOT = Path(__file__).parents[2]
CLOCKS = """if True:
    import json, time
    from reliability import conditions
    from whereby_trigger.clock import boot_time
    conditions.bear_skew()
    for _ in range(2):
        print(json.dumps([time.time(), boot_time()]), flush=True)
        input()
        time.sleep(0.01)
"""


def test_the_time_of_day_is_off_and_jumps_and_the_boot_clock_is_right(tmp_path: Path) -> None:
    try:
        skew = Skew(tmp_path)
    except ToolMissing as missing:
        pytest.skip(str(missing))
    skew.set(-600)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", CLOCKS], cwd=ROOT, env=skew.environment, stdin=pipe, stdout=pipe, text=True
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        offsets = []
        for jump in (86_400, 0):
            wall, boot = json.loads(program.stdout.readline())
            offsets.append(wall - time.time())
            assert abs(boot - boot_time()) < 10
            skew.set(jump)
            print(file=program.stdin, flush=True)
    assert program.returncode == 0
    assert offsets == [pytest.approx(-600, abs=10), pytest.approx(86_400, abs=10)]
