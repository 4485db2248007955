"""Roles of a PostgreSQL server with fewer privileges than its superuser."""

import itertools
from urllib.parse import quote

from tests.support.postgres import HOST, Server, database_of

PASSWORD = "100% of it: @/?#[]&=+ ünd"
"""Characters that a password may contain; most of them have a meaning in a URL."""


class Role:
    """Name a role that may log in, and grant it what a test wants."""

    def __init__(self, server: Server, name: str) -> None:
        self.name = name
        self._server = server

    def url(self, database: str) -> str:
        """Return the URL of a database for this role, its password escaped."""
        where = f"{HOST}:{self._server.port}/{database_of(database)}"
        return f"postgresql://{self.name}:{quote(PASSWORD, safe='')}@{where}"

    def grant(self, database: str, *privileges: str) -> None:
        """Grant privileges in a database, such as `USAGE ON SCHEMA whereby_trigger`."""
        for privilege in privileges:
            self._server.run(f"GRANT {privilege} TO {self.name}", database_of(database))


class Roles:
    """Create roles on a server, and drop them together with all databases that tests made there."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._numbers = itertools.count(1)
        self._names: list[str] = []

    def new(self, attributes: str = "") -> Role:
        """Create a role with attributes such as `CONNECTION LIMIT 0`."""
        name = f"role_{next(self._numbers)}"
        self._server.run(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}' {attributes}")
        self._names.append(name)
        return Role(self._server, name)

    def drop(self) -> None:
        self._server.revive()
        self._server.drop_databases()
        while self._names:
            self._server.run(f"DROP ROLE {self._names.pop()}")
