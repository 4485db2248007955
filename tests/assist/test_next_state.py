"""What follows a run, as one table: how it ended, what was asked meanwhile, and how often it was restarted."""

import pytest

from whereby_trigger.assist.runners import BACKOFF, RunEnd, RunResult, next_state, report_of
from whereby_trigger.store import RoomState, RunOutcome, RunReport

WAITING, ENDED, FAILED = RoomState.WAITING, RoomState.ENDED, RoomState.FAILED
RESTARTS = range(len(BACKOFF))


def test_one_that_returns_has_ended() -> None:
    following = next_state(RunResult(RunEnd.RETURNED, "it left the room"), restarts=1, stop=None, handing_over=False)
    assert (following.state, following.reason, following.restarts) == (ENDED, "it left the room", 1)


@pytest.mark.parametrize("how", [RunEnd.RAISED, RunEnd.REFUSED, RunEnd.CUT_OFF])
@pytest.mark.parametrize("restarts", RESTARTS)
def test_one_that_fails_is_restarted_after_a_pause_that_grows(how: RunEnd, restarts: int) -> None:
    following = next_state(RunResult(how, "odd"), restarts=restarts, stop=None, handing_over=False)
    assert (following.state, following.restarts, following.pause) == (WAITING, restarts + 1, BACKOFF[restarts])
    assert following.reason == f"odd: restart {restarts + 1} of 3"


@pytest.mark.parametrize("how", [RunEnd.RAISED, RunEnd.REFUSED, RunEnd.CUT_OFF])
def test_one_that_fails_after_three_restarts_has_failed(how: RunEnd) -> None:
    following = next_state(RunResult(how, "odd"), restarts=3, stop=None, handing_over=False)
    assert (following.state, following.reason, following.restarts) == (FAILED, "odd, after 3 restarts", 3)


@pytest.mark.parametrize("restarts", RESTARTS)
def test_one_for_which_another_try_makes_no_sense_has_failed_at_once(restarts: int) -> None:
    end = RunResult(RunEnd.REFUSED, "refused: room_locked", retry=False)
    following = next_state(end, restarts=restarts, stop=None, handing_over=False)
    assert (following.state, following.reason, following.restarts) == (FAILED, "refused: room_locked", restarts)


@pytest.mark.parametrize("how", RunEnd)
@pytest.mark.parametrize("handing_over", [False, True])
@pytest.mark.parametrize("retry", [False, True])
def test_however_one_that_was_asked_to_end_is_over_it_has_ended(how: RunEnd, handing_over: bool, retry: bool) -> None:
    end = RunResult(how, "odd", retry=retry)
    following = next_state(end, restarts=2, stop="the session has ended", handing_over=handing_over)
    assert (following.state, following.reason, following.restarts) == (ENDED, "the session has ended", 2)


@pytest.mark.parametrize("how", RunEnd)
@pytest.mark.parametrize("restarts", range(4))
def test_one_that_is_handed_over_waits_at_once_and_uses_up_no_restart(how: RunEnd, restarts: int) -> None:
    following = next_state(RunResult(how, "odd"), restarts=restarts, stop=None, handing_over=True)
    assert (following.state, following.restarts, following.pause) == (WAITING, restarts, 0)


def test_the_pauses_grow() -> None:
    assert sorted(BACKOFF) == list(BACKOFF)
    assert BACKOFF[0] > 0


@pytest.mark.parametrize(
    ("how", "outcome"),
    [
        (RunEnd.RETURNED, RunOutcome.LEFT),
        (RunEnd.RAISED, RunOutcome.FAILED),
        (RunEnd.REFUSED, RunOutcome.REFUSED),
        (RunEnd.CUT_OFF, RunOutcome.FAILED),
        (RunEnd.EXHAUSTED, RunOutcome.EXHAUSTED),
    ],
)
def test_a_run_is_recorded_by_how_it_ended_unless_it_was_handed_over(how: RunEnd, outcome: RunOutcome) -> None:
    end = RunResult(how, "odd", errors=("one", "two\0"), exception="Odd", exit_code=3, signal=9)
    report = RunReport(outcome, exit_code=3, signal=9, exception="Odd", output="one\ntwo\N{REPLACEMENT CHARACTER}")
    assert report_of(end, handing_over=False) == report
    assert report_of(end, handing_over=True).outcome is RunOutcome.HANDED_OVER


def test_a_run_is_reported_without_its_output_if_there_is_no_memory_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(text: str) -> str:
        raise MemoryError

    monkeypatch.setattr("whereby_trigger.assist.runners.storable_text", out_of_memory)
    end = RunResult(RunEnd.RAISED, "exited with 3", errors=("one", "two"), exit_code=3)
    report = report_of(end, handing_over=False)
    assert (report.outcome, report.exit_code, report.output) == (RunOutcome.FAILED, 3, "")
