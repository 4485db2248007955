"""A complete look at a database: what it reports, and that it leaves nothing there."""

import pytest

from tests.store.conftest import Replicas
from tests.support.postgres import Server, database_of
from tests.support.postgres_roles import Roles
from whereby_trigger.store.postgres import PostgresStore
from whereby_trigger.store.postgres.opening import SCHEMA

pytestmark = pytest.mark.anyio


async def said(url: str) -> dict[str, str]:
    return {remark.about: remark.words for remark in await PostgresStore(url).look()}


async def problems(url: str) -> dict[str, str]:
    return {remark.about: remark.words for remark in await PostgresStore(url).look() if remark.problem}


@pytest.mark.parametrize("options", ["", "?pooler=yes"])
async def test_on_an_empty_database_the_first_start_is_tried_and_taken_back(
    postgres: Server, url: str, options: str
) -> None:
    words = await said(url + options)
    assert words["schema"] == "none yet, and the first start may make it"
    assert words["version"].startswith("PostgreSQL ")
    assert postgres.run("SELECT count(*) FROM pg_namespace WHERE nspname = 'whereby_trigger'", database_of(url)) == "0"


@pytest.mark.parametrize("options", ["", "?pooler=yes"])
async def test_on_a_store_an_entry_is_tried_and_taken_back(postgres: Server, url: str, options: str) -> None:
    await PostgresStore(url).migrate()
    assert (await said(url + options))["schema"] == f"{SCHEMA}, and takes writes"
    assert postgres.run("SELECT count(*) FROM whereby_trigger.replicas", database_of(url)) == "0"


async def test_a_store_that_is_in_use_goes_on(url: str, opened: Replicas) -> None:
    store = await opened(url)
    assert (await said(url))["schema"] == f"{SCHEMA}, and takes writes"
    assert await store.renew(30)


async def test_a_store_of_an_older_schema_is_left_for_the_next_start_to_migrate(postgres: Server, url: str) -> None:
    postgres.run("CREATE SCHEMA whereby_trigger", database_of(url))
    postgres.run("CREATE TABLE whereby_trigger.version (schema integer, admits integer)", database_of(url))
    postgres.run("INSERT INTO whereby_trigger.version VALUES (1, 1)", database_of(url))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("whereby_trigger.store.postgres.opening.SCHEMA", SCHEMA + 1)
        assert (await said(url))["schema"] == f"1, which the next start brings to {SCHEMA + 1}"


async def test_every_problem_is_said_at_once(postgres: Server, url: str, roles: Roles) -> None:
    role = roles.new()
    postgres.run(f"ALTER DATABASE {database_of(url)} SET synchronous_commit = off")
    assert list(await problems(role.url(url))) == ["durability", "privileges"]


async def test_a_database_that_admits_only_newer_programs_is_a_problem_of_its_schema(
    postgres: Server, url: str
) -> None:
    await PostgresStore(url).migrate()
    postgres.run(f"UPDATE whereby_trigger.version SET schema = {SCHEMA + 1}, admits = {SCHEMA + 1}", database_of(url))
    (schema,) = (await problems(url)).items()
    assert schema[0] == "schema"
    assert "upgrade whereby-trigger" in schema[1]


async def test_a_schema_that_somebody_else_began_is_a_problem_of_its_schema(postgres: Server, url: str) -> None:
    postgres.run("CREATE SCHEMA whereby_trigger; CREATE TABLE whereby_trigger.webhooks ()", database_of(url))
    assert list(await problems(url)) == ["schema"]
