"""Row 25: mutations of our own code, each of which a test of this suite notices.

Those of the PostgreSQL store start a server each, for which `make reliability ROWS=25` has the time.
"""

import pytest

from reliability.mutants import MUTANTS
from reliability.mutants_in_postgres import IN_POSTGRES
from reliability.rows import mutations

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("name", [name for name in MUTANTS if name not in IN_POSTGRES])
async def test_a_mutation_is_caught(name: str) -> None:
    assert await mutations.why_not_caught(name, MUTANTS[name]) == []
