"""A delivery goes through the stages once, forward only, and in few calls."""

from pathlib import Path

import pytest

from scripts.trace_delivery import traced
from whereby_trigger.decide import dispatcher

pytestmark = pytest.mark.anyio

CALLS, MODULES = 70, 16
"""At most, in the loop, from the socket to the predicate."""


async def test_a_delivery_enters_no_stage_again_and_takes_few_calls_to_its_predicate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The script, a separate program, stops the backlog's looks: the tests after this one need them.
    for pause in ("TAKEOVER", "REREAD"):
        monkeypatch.setattr(dispatcher, pause, getattr(dispatcher, pause))
    trace = await traced(tmp_path)
    assert trace.stages(trace.forward) == ["receive", "store", "receive", "dispatch", "decide"]
    assert trace.stages(trace.calls[trace.asked :]) == ["decide", "store", "dispatch"]
    assert trace.entered_again == []
    in_the_loop = trace.in_the_loop()
    assert len(in_the_loop.forward) <= CALLS
    assert len(in_the_loop.modules) <= MODULES
