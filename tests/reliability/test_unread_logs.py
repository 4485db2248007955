"""Row 29, in a small dose: nobody, or almost nobody, reads the log, and nothing waits for that."""

from pathlib import Path

import pytest

from reliability.rows import unread_logs
from reliability.stores import Stores

pytestmark = pytest.mark.anyio


async def test_a_log_that_is_not_read_holds_up_no_answer_and_no_end(tmp_path: Path, stores: Stores) -> None:
    result = await unread_logs.run(tmp_path, stores, doses=1, rate=50, seconds=0.5, faults=("stalls",))
    # The speed depends on the machine, and on its other work.
    assert [problem for problem in result.problems if "p99" not in problem and " after " not in problem] == []
