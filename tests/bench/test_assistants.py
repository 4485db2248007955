"""Table 5 in a tiny dose."""

import pytest

from bench.sides import NAMES, POSTGRES, SQLITE, Setting, Side
from bench.tables import assistants

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("side", [SQLITE, POSTGRES])
async def test_the_way_from_a_success_to_its_assistant_is_measured(
    setting: Setting, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assistants, "SETTLED", 0)
    dose = assistants.Dose(
        coroutines=5, coroutines_per_second=50, commands=2, commands_per_second=50, kept=5, watched=0.1, sides=(side,)
    )
    outcome = await assistants.run(setting, dose)
    assert outcome.problems == []
    starts, costs = outcome.grids
    bare, coroutine, process = starts.rows
    assert [row[1] for row in (bare, coroutine, process)] == [2, 5, 2]
    assert float(str(process[2])) > 0
    assert [str(row[0]).partition(", ")[0] for row in costs.rows] == [NAMES[side]] * 4
