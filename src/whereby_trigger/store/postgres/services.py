"""Services: connections that are described by name in a file, as libpq has them."""

from collections.abc import Mapping
from configparser import Error as NotReadable
from configparser import RawConfigParser
from pathlib import Path
from typing import NamedTuple

from whereby_trigger.errors import ConfigError


class Services(NamedTuple):
    """Hold what the environment says of services: the one to use where a URL names none, and the file they are in.

    `host` is the database's where neither a URL nor a service names one.
    """

    default: str | None = None
    file: Path | None = None
    host: str = ""

    def options(self, name: str | None) -> Mapping[str, str]:
        """Give the options of a service, of the default one where no name is given, with its name as `service`.

        The driver would take an unknown name for none, PGSERVICE for nothing, and a % in a password for its own.
        Raises ConfigError where the file does not describe it.
        Source: PostgreSQL docs, libpq, The Connection Service File.
        """
        name = name or self.default
        if not name:
            return {}
        described = RawConfigParser(strict=False, allow_no_value=True)
        try:
            read = [] if self.file is None else described.read(self.file, encoding="utf-8")
        except (NotReadable, UnicodeDecodeError):
            # Its text would show a line of the file, and with it perhaps a password.
            raise ConfigError(
                f"the service file {self.file} cannot be read: write [name] and key=value lines"
            ) from None
        if not described.has_section(name):
            why = "does not describe it" if read else "is not there, or may not be read"
            raise ConfigError(
                f"the store is to be service {name!r}, but {self.file or 'no file'} {why}: add [{name}] to it, "
                "or name another file by PGSERVICEFILE"
            )
        return {key: value or "" for key, value in described.items(name)} | {"service": name}
