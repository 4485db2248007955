"""The privileges that a replica's role needs, and the error for a role that lacks some."""

from pathlib import Path

import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import decided
from tests.support.markdown import Page
from tests.support.postgres import Server, database_of
from tests.support.postgres_roles import Role, Roles
from tests.support.rooms import ask, take_one
from whereby_trigger.errors import StoreError
from whereby_trigger.store.postgres import PostgresStore

pytestmark = pytest.mark.anyio

OPERATING = Path(__file__).parents[3] / "docs" / "operating.md"
USAGE = "USAGE ON SCHEMA whereby_trigger"
TABLES = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA whereby_trigger"
SEQUENCES = "USAGE ON ALL SEQUENCES IN SCHEMA whereby_trigger"
LITTLE_OF_THEM = "SELECT, INSERT ON ALL TABLES IN SCHEMA whereby_trigger"


@pytest.fixture
async def role(url: str, roles: Roles) -> Role:
    """Return a role without any privilege in a database that somebody else has migrated."""
    await PostgresStore(url).migrate()
    return roles.new()


@pytest.mark.parametrize(
    ("granted", "says"),
    [
        ([], "may not use the schema whereby_trigger"),
        ([USAGE, SEQUENCES], " DELETE, INSERT, SELECT, UPDATE on replicas; "),
        ([USAGE, SEQUENCES], "; SELECT on version; "),
        ([USAGE, SEQUENCES, LITTLE_OF_THEM], "; DELETE, UPDATE on replica_log; DELETE, UPDATE on replicas; "),
        ([USAGE, TABLES], "lacks USAGE on webhooks_seq in the store"),
    ],
)
async def test_a_role_that_lacks_a_privilege_is_told_which(
    url: str, role: Role, opened: Replicas, granted: list[str], says: str
) -> None:
    role.grant(url, *granted)
    with pytest.raises(StoreError) as refusal:
        await opened(role.url(url))
    assert says in str(refusal.value)
    assert f"TO {role.name}" in str(refusal.value)


async def test_what_the_docs_have_granted_is_enough(postgres: Server, url: str, role: Role, opened: Replicas) -> None:
    (grants,) = [block for block in Page(OPERATING).blocks("sql") if "GRANT" in block.code]
    postgres.run(grants.code.replace("trigger_app", role.name), database_of(url))
    store = await opened(role.url(url))
    await decided(store, "one")
    await ask(store)
    await take_one(store)
    assert await store.prune(2e9) == 1


async def test_where_it_lacks_a_migration_somebody_else_has_to_run_it(
    postgres: Server, url: str, role: Role, opened: Replicas
) -> None:
    role.grant(url, USAGE, TABLES, SEQUENCES)
    postgres.run("UPDATE whereby_trigger.version SET schema = 0", database_of(url))
    with pytest.raises(StoreError, match="run `whereby-trigger db migrate` as the role that owns the schema"):
        await opened(role.url(url))


async def test_on_an_empty_database_it_is_told_to_have_the_schema_made(
    url: str, roles: Roles, opened: Replicas
) -> None:
    role = roles.new()
    with pytest.raises(StoreError, match=f"GRANT CREATE ON DATABASE {database_of(url)} TO {role.name}, or run"):
        await opened(role.url(url))
    role.grant(url, f"CREATE ON DATABASE {database_of(url)}")
    await decided(await opened(role.url(url)), "one")


async def test_a_name_that_must_be_quoted_is_quoted_in_what_to_do(postgres: Server, url: str, roles: Roles) -> None:
    postgres.run(f'ALTER DATABASE {database_of(url)} RENAME TO "Odd {database_of(url)}"')
    renamed = f"Odd {database_of(url)}"
    try:
        with pytest.raises(StoreError, match=f'GRANT CREATE ON DATABASE "{renamed}" TO role_1'):
            await PostgresStore(roles.new().url(f"/{renamed}")).migrate()
    finally:
        postgres.run(f'ALTER DATABASE "{renamed}" RENAME TO {database_of(url)}')
