"""The watchdog ends the process whose loop is blocked past a deadline, and no other."""

import subprocess
import sys
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whereby_trigger import process
from whereby_trigger.clock import Lease
from whereby_trigger.process import NoWatchdog

PROGRAM = """
import threading
from whereby_trigger.process import Watchdog
from whereby_trigger.clock import boot_time

watchdog = Watchdog()
{setting}
threading.Event().wait({seconds})
print("went on")
"""


def run(setting: str, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a program that sets deadlines and then blocks for some seconds."""
    program = PROGRAM.format(setting=setting, seconds=seconds)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)


def test_a_deadline_that_passes_ends_the_process_and_says_whose_it_was() -> None:
    ended = run('watchdog.set("the lease", boot_time() + 0.1)', 20)
    assert (ended.returncode, ended.stdout) == (70, "")
    assert "the deadline of the lease" in ended.stderr


@pytest.mark.parametrize(
    "setting",
    [
        pytest.param('watchdog.set("the lease", boot_time() + 60)', id="not reached"),
        pytest.param('watchdog.set("the lease", boot_time() - 1, lambda: False)', id="nothing runs"),
        pytest.param('watchdog.set("a", boot_time() - 1); watchdog.set("a", boot_time() + 60)', id="moved"),
        pytest.param('watchdog.set("a", boot_time() - 1); watchdog.clear("a")', id="cleared"),
        pytest.param('watchdog.set("a", boot_time() - 1); watchdog.close()', id="closed"),
    ],
)
def test_a_deadline_that_does_not_pass_ends_nothing(setting: str) -> None:
    went_on = run(setting, 1)
    assert (went_on.returncode, went_on.stdout, went_on.stderr) == (0, "went on\n", "")


class Ended(Exception):
    """Stand in for the end of the process."""


class Ticking:
    """A clock that runs on by what the watchdog waits."""

    def __init__(self, now: float) -> None:
        self.now = now

    def wait(self, seconds: float) -> bool:
        assert seconds > 0
        self.now += seconds
        return False


def end(name: str) -> None:
    raise Ended


def ended_at(now: float, deadline: float, within: float) -> float:
    """Return when the watchdog ends a process that it watches from `now` on."""
    clock, watchdog = Ticking(now), NoWatchdog()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(process, "boot_time", lambda: clock.now)
        patched.setattr(process, "_end_at_once", end)
        patched.setattr(watchdog, "_closed", clock)
        watchdog.set("the lease", deadline, within=within)
        watchdog.set("another", deadline + 1e6)
        with pytest.raises(Ended):
            deque(iter(watchdog._look, False), maxlen=0)
    return clock.now


@given(st.floats(1, 3600), st.floats(0.2, 1))
def test_a_process_that_blocks_is_ended_before_its_lease_is_over(ttl: float, before: float) -> None:
    lease = Lease(ttl)
    deadline = ttl - lease.margin
    assert deadline < ended_at(deadline - before, deadline, lease.margin) < ttl


@given(st.floats(1, 3600), st.floats(1, 86_400))
def test_a_process_that_was_frozen_past_its_lease_has_half_a_second_to_end_what_runs(ttl: float, slept: float) -> None:
    lease = Lease(ttl)
    deadline = ttl - lease.margin
    goes_on = deadline + slept
    assert 0.4 < ended_at(goes_on, deadline, lease.margin) - goes_on < 0.6


def test_a_deadline_of_another_name_still_holds() -> None:
    assert run('watchdog.set("a", boot_time() + 60); watchdog.set("b", boot_time() + 0.1)', 20).returncode == 70


def test_a_lack_of_memory_in_a_look_does_not_end_the_watchdog() -> None:
    setting = """
failing = iter([True])
def applies():
    if next(failing, False):
        raise MemoryError
    return True
watchdog.set("the lease", boot_time() + 0.1, applies)
"""
    assert run(setting, 20).returncode == 70


@pytest.mark.parametrize(
    "lock",
    [
        pytest.param("whereby_trigger.stderr.writer_of(sys.stderr)._lock", id="the log's writer"),
        pytest.param("threading._active_limbo_lock", id="the start of a thread"),
    ],
)
def test_code_that_blocks_while_it_holds_a_lock_does_not_hold_up_the_end(lock: str) -> None:
    # As when a signal handler or a finalizer interrupts the logging of a line, or the start of a thread.
    setting = f'import sys, whereby_trigger.stderr; watchdog.set("a", boot_time() + 0.1); {lock}.acquire()'
    assert run(setting, 20).returncode == 70
