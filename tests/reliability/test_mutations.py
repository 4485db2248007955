"""Row 25: mutations of our own code, each of which a test of this suite notices."""

import pytest

from reliability.mutants import MUTANTS
from reliability.rows import mutations

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_mutation_is_caught(name: str) -> None:
    assert await mutations.why_not_caught(name, MUTANTS[name]) == []
