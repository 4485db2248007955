"""Table 4 in a tiny dose, and the stores that it is measured on."""

import pytest

from bench.bodies import bodies
from bench.load import LoadFailed
from bench.sides import NAMES, POSTGRES, SQLITE, Setting, Side
from bench.stores import Count, fill, looking_into
from bench.tables import growth
from bench.tables.growth import start
from whereby_trigger.store import Query, State
from whereby_trigger.store.factory import store_for
from whereby_trigger.webhook import decode

pytestmark = pytest.mark.anyio

SOME = 250


@pytest.mark.parametrize("side", [SQLITE, POSTGRES])
async def test_a_filled_store_is_one_that_the_program_could_have_filled(setting: Setting, side: Side) -> None:
    with setting.stores.new(side) as url:
        await fill(url, SOME)
        store = store_for(url)
        await store.open_readonly()
        try:
            records = await store.find(Query())
        finally:
            await store.close()
    assert len({record.id for record in records}) == SOME
    for record in records:
        webhook = decode(record.body)
        assert (record.id, record.type, record.state) == (webhook.id, webhook.type, State.FIRED)
        assert record.room == f"acme.whereby.com{webhook.data.room_name}"  # type: ignore[union-attr]
        assert record.decided_at is not None
        assert record.received_at <= record.decided_at
    assert len(records[0].body) == len(next(bodies()).body)


@pytest.mark.parametrize("side", [SQLITE, POSTGRES])
async def test_what_is_left_pending_is_decided_by_the_next_start(setting: Setting, side: Side) -> None:
    with setting.stores.new(side) as url:
        await fill(url, SOME)
        started = await start(setting, side, url, pending=20)
        assert started.answered > 0
        assert started.decided > 0
        async with looking_into(url) as books:
            assert await books.counted(0) == Count(SOME + 1, SOME + 1)


@pytest.mark.parametrize("side", [SQLITE, POSTGRES])
async def test_growth_is_measured(setting: Setting, side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "SETTLED", 0)
    dose = growth.Dose(
        webhooks=40, rounds=1, connections=4, sizes=(0, 60, 100), pending=10, starts=1, burst=10, sides=(side,)
    )
    outcome = await growth.run(setting, dose)
    assert outcome.problems == []
    throughputs, trust, starts, footprints = outcome.grids
    assert [row[0] for row in throughputs.rows] == [f"{NAMES[side]}, {size}" for size in dose.sizes]
    assert len(trust.rows) == len(throughputs.rows)
    assert len(starts.rows) == len(footprints.rows) == 1
    *memory, each_on_disk = (float(str(cell)) for cell in footprints.rows[0][1:])
    assert len(memory) == 5
    assert all(mebibytes > 10 for mebibytes in memory)
    assert each_on_disk > 550
    judged = [verdict.target for verdict in outcome.verdicts]
    assert judged == ([growth.IDLE_TARGET, growth.AFTER_TARGET] if side == SQLITE else [])


async def test_a_store_that_the_disk_has_no_room_for_is_not_filled(setting: Setting) -> None:
    with setting.stores.new(SQLITE) as url, pytest.raises(LoadFailed, match="GB are free"):
        await fill(url, 10**15)
