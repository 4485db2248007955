"""Row 37 in a small dose: replicas that hold webhooks are killed and drained, and each webhook fires once."""

from pathlib import Path

import pytest

from reliability.rows import held_webhooks
from reliability.stores import LEASE, PostgresStores, Stores

pytestmark = pytest.mark.anyio

SLACK = 3.0
"""Seconds added to the bound for an idle machine."""


async def test_held_webhooks_fire_once_through_a_kill_and_a_drain(
    tmp_path: Path, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_webhooks, "LIVING", 1.0 + SLACK)
    bound = (LEASE if isinstance(stores, PostgresStores) else 1.0) + 1.0 + SLACK
    result = await held_webhooks.run(tmp_path, stores, webhooks=60, deaths=2, hold=1.0, bound=bound, lease=LEASE)
    assert result.problems == []
    assert result.figures["held"] == 60
    assert result.figures["fired by another"] != 0
