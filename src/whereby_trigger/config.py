"""The settings of a trigger: their names, defaults and sources. The only reader of environment variables."""

import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from whereby_trigger.errors import ConfigError
from whereby_trigger.text import read_file

PREFIX = "WHEREBY_TRIGGER_"
PASSWORDS = re.compile(r"(?<=://).*(?=@)|(?<=:)(?!//).*(?=@)|(?<=\?).*", re.DOTALL)
LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
"""One label of a host name, which is what a subdomain is. Source: RFC 1123, 2.1."""

ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/@]+):([0-9]{1,5})")
"""A host and a port; an IPv6 address stands in brackets."""

DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d|w)", re.IGNORECASE)
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 7 * 86_400.0}

ALIKE = 0.85
"""How alike a variable of the environment must be to one of ours to be called a misspelt one."""

SHORTEST_TOKEN = 16
"""Characters that a token must have: a shorter one could be guessed."""

UNSET = None


@dataclass(frozen=True)
class Settings:
    """Hold every setting of one trigger, resolved. Durations are in seconds, sizes in bytes.

    `secret_file` is the file that the secret was read from, if it was, and is read from again when it changes;
    `store_file` is that of the store's URL, which each new connection reads again.
    """

    port: int
    host: str | None
    path: str
    subdomain: str | None
    secret: tuple[str, ...]
    allow_unsigned: bool
    tolerance: float
    max_body: int
    store: str
    spill: str | None
    metrics: str | None
    retention: float
    body_retention: float | None
    redact: tuple[str, ...]
    max_age: float
    predicate_timeout: float
    lease_ttl: float
    max_rooms: int
    stop_grace: float
    drain_timeout: float
    inspector: str | None
    inspector_token: str | None
    inspector_actions: bool
    inspector_reveal: bool
    secret_file: str | None = None
    store_file: str | None = None

    @property
    def signed(self) -> bool:
        return bool(self.secret)

    @property
    def inspector_address(self) -> tuple[str, int] | None:
        """The host and port to serve the inspector on, or None."""
        if self.inspector is None:
            return None
        host, _, port = self.inspector.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def listen_host(self) -> str:
        """The address to bind: by default this machine only, if nothing proves who is calling."""
        if self.host is not None:
            return self.host
        return "0.0.0.0" if self.signed or self.allow_unsigned else "127.0.0.1"  # noqa: S104

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """The host and port to serve metrics on, or None."""
        if self.metrics is None:
            return None
        host, _, port = self.metrics.rpartition(":")
        return host.strip("[]"), int(port)


@dataclass(frozen=True)
class Option:
    """Describe one setting: how its value is read and which environment variables can set it.

    A variable with `_FILE` at its end names a file that holds the value, if the setting `may_be_in_file`.
    """

    name: str
    default: Any
    read: Callable[[str, Any], Any]
    help: str
    variables: tuple[str, ...] = ()
    may_be_in_file: bool = False

    @cached_property
    def environment(self) -> tuple[str, ...]:
        return self.variables or (PREFIX + self.name.upper(),)

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The environment variables that name a file with the value."""
        return tuple(f"{variable}_FILE" for variable in self.environment if self.may_be_in_file)


@dataclass(frozen=True)
class Resolved:
    """Hold the settings, the source of each value, and warnings about them."""

    settings: Settings
    sources: Mapping[str, str]
    warnings: tuple[str, ...] = ()


def read_text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{name} must be a string that is not blank, not {value!r}")
    return value.strip()


def read_integer(low: int, high: int) -> Callable[[str, Any], int]:
    def read(name: str, value: Any) -> int:
        try:
            number = int(value) if isinstance(value, str) else value
        except ValueError:
            number = None
        if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
            raise ConfigError(f"{name} must be a whole number from {low} to {high}, not {value!r}")
        return number

    return read


def read_duration(low: float) -> Callable[[str, Any], float]:
    def read(name: str, value: Any) -> float:
        try:
            seconds = _seconds(value)
        except (TypeError, ValueError, OverflowError):
            seconds = float("nan")
        if isinstance(value, bool) or not low <= seconds < float("inf"):
            raise ConfigError(
                f"{name} must be seconds as a number, a text such as 90s, 30m, 2h or 7d, or a timedelta, "
                f"at least {low:g} s, not {value!r}"
            )
        return seconds

    return read


def _seconds(value: Any) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, str) and (written := DURATION.fullmatch(value.strip())):
        return float(written[1]) * UNITS[written[2].lower()]
    return float(value)


def read_host(name: str, value: Any) -> str:
    host = read_text(name, value)
    if host.lower().startswith("unix:") or "/" in host:
        raise ConfigError(
            f"{name} must be a name or an address, such as 127.0.0.1, not {value!r}: the trigger listens on no Unix "
            "socket; `uvicorn app:trigger.asgi --uds FILE` serves it on one"
        )
    return host


def read_flag(name: str, value: Any) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    flag = words.get(value.strip().lower()) if isinstance(value, str) else value
    if not isinstance(flag, bool):
        raise ConfigError(f"{name} must be true or false, not {value!r}")
    return flag


def read_path(name: str, value: Any) -> str:
    path = read_text(name, value)
    if not path.startswith("/") or set("?#%") & set(path) or path in ("/livez", "/readyz"):
        raise ConfigError(
            f"{name} must start with '/', contain no '?', '#' or '%' and not be /livez or /readyz, not {value!r}"
        )
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{name} must be UTF-8, as paths in URLs are, not {value!r}") from None
    return path


def read_subdomain(name: str, value: Any) -> str:
    """Return one host label; anything else would lead out of whereby.com. Raises ConfigError."""
    subdomain = read_text(name, value)
    if not LABEL.fullmatch(subdomain):
        raise ConfigError(
            f"{name} must be the part before .whereby.com in your rooms' URLs: "
            f"letters, digits and hyphens, at most 63, not {value!r}"
        )
    return subdomain


def read_spill(name: str, value: Any) -> str | None:
    url = read_text(name, value)
    if url.lower() == "off":
        return None
    if not url.startswith("sqlite:"):
        shown = PASSWORDS.sub("***", url)
        raise ConfigError(f"{name} must be the URL of a file on this machine, sqlite:///file.db, or off, not {shown!r}")
    return url


def read_address(name: str, value: Any) -> str | None:
    """Return `HOST:PORT`, or None for "off". Raises ConfigError."""
    address = read_text(name, value)
    if address.lower() == "off":
        return None
    found = ADDRESS.fullmatch(address)
    if found is None or int(found[2]) > 65535:
        raise ConfigError(
            f"{name} must be an address to serve on, as HOST:PORT, e.g. 127.0.0.1:9100, or off, not {value!r}"
        )
    return address


def read_token(name: str, value: Any) -> str:
    """Return a token that nobody can guess. Raises ConfigError, without the token in its message."""
    token = value.strip() if isinstance(value, str) else ""
    if len(token) < SHORTEST_TOKEN:
        raise ConfigError(
            f"{name} must have at least {SHORTEST_TOKEN} characters: make one with "
            "`python -c 'import secrets; print(secrets.token_urlsafe(24))'`"
        )
    try:
        token.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{name} is not UTF-8: write it again") from None
    return token


def read_secret(name: str, value: Any) -> tuple[str, ...]:
    """Return one secret, or several for a rotation. Raises ConfigError."""
    secrets: Sequence[Any] = [value] if isinstance(value, str) else value
    if not isinstance(secrets, Sequence) or not secrets or not all(isinstance(secret, str) for secret in secrets):
        raise ConfigError(
            f"{name} must be a secret or a sequence of secrets, as strings; leave it out to run without one"
        )
    if not all(secret.strip() for secret in secrets):
        raise ConfigError(
            f"{name} holds a blank secret, which would let in nobody or everybody: "
            "set the webhook's secret from Whereby's dashboard, or remove the variable"
        )
    try:
        "".join(secrets).encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{name} holds a secret that is not UTF-8: copy it again from Whereby's dashboard") from None
    return tuple(secret.strip() for secret in secrets)


def secrets_in(path: str) -> tuple[str, ...]:
    """Return the secrets in a file, one a line or with commas between them. Raises ConfigError."""
    return read_secret(SECRET_FILE, _one_a_line(read_file(SECRET_FILE, path)))


def _one_a_line(text: str) -> list[str]:
    return [secret for line in text.splitlines() if line.strip() for secret in line.split(",")] or [""]


REDACTABLE = ("displayName", "metadata", "externalId", "participantId")


def read_redact(name: str, value: Any) -> tuple[str, ...]:
    """Return the names of fields, from a sequence or from text with commas. Raises ConfigError."""
    fields = [field.strip() for field in value.split(",")] if isinstance(value, str) else value
    if not isinstance(fields, Sequence) or not all(field in REDACTABLE for field in fields if field != ""):
        raise ConfigError(f"{name} must name fields of webhooks, any of {', '.join(REDACTABLE)}, not {value!r}")
    return tuple(field for field in REDACTABLE if field in fields)


SECRET = "WHEREBY_WEBHOOK_SECRET"  # noqa: S105
SECRET_FILE = f"{SECRET}_FILE"
STORE_FILE = f"{PREFIX}STORE_FILE"

OPTIONS: tuple[Option, ...] = (
    Option("port", 8080, read_integer(0, 65535), "port to listen on; 0 picks one", (PREFIX + "PORT", "PORT")),
    Option("host", UNSET, read_host, "address to listen on"),
    Option("path", "/", read_path, "path that takes deliveries; may contain an unguessable segment"),
    Option("subdomain", UNSET, read_subdomain, "your Whereby subdomain, used if a webhook names none"),
    Option("secret", (), read_secret, "the webhook's secret; several for a rotation", (SECRET,), may_be_in_file=True),
    Option("allow_unsigned", False, read_flag, "serve other machines without a secret"),
    Option("tolerance", 300.0, read_duration(1), "how far a signature's time may be off, in seconds"),
    Option("max_body", 256 * 1024, read_integer(1024, 64 * 1024 * 1024), "largest body that is read, in bytes"),
    Option(
        "store",
        "sqlite:///whereby-trigger.db",
        read_text,
        "where webhooks and decisions are kept, as a URL",
        may_be_in_file=True,
    ),
    Option("spill", UNSET, read_spill, "where deliveries wait while PostgreSQL is unavailable, as sqlite:///file.db"),
    Option("metrics", UNSET, read_address, "where metrics are served, as HOST:PORT, at /metrics; off by default"),
    Option(
        "retention",
        7 * 86400.0,
        read_duration(60),
        "how long decided webhooks are kept, in seconds; at least twice the tolerance and 60 s",
    ),
    Option("body_retention", UNSET, read_duration(60), "how long decided webhooks keep their whole body, in seconds"),
    Option("redact", (), read_redact, "fields to remove from a body once it is decided: " + ",".join(REDACTABLE)),
    Option("max_age", 7200.0, read_duration(1), "a webhook first decided later than this is skipped, in seconds"),
    Option("predicate_timeout", 10.0, read_duration(0.01), "how long a predicate may take, in seconds"),
    Option("lease_ttl", 30.0, read_duration(1), "how long a replica counts as alive after each renewal, in seconds"),
    Option("max_rooms", 50, read_integer(0, 100_000), "in how many rooms at a time this replica runs an assistant"),
    Option("stop_grace", 10.0, read_duration(0), "how long an assistant has to return when it must end, in seconds"),
    Option("drain_timeout", 3600.0, read_duration(0), "how long a drain waits for user code, in seconds"),
    Option("inspector", UNSET, read_address, "where the inspector is served, as HOST:PORT; off by default"),
    Option(
        "inspector_token", UNSET, read_token, "what one logs in to the inspector with; 16 or more", may_be_in_file=True
    ),
    Option("inspector_actions", True, read_flag, "let the inspector replay webhooks, and start and stop assistants"),
    Option("inspector_reveal", True, read_flag, "let the inspector reveal what it masks, one webhook at a time"),
)
NAMES = tuple(option.name for option in OPTIONS)


def resolve(
    keywords: Mapping[str, Any],
    command_line: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Resolved:
    """Resolve every setting: the command line wins over keywords, they over the environment, it over defaults.

    A value of None counts as not given. Raises ConfigError if a value cannot be used.
    """
    command_line = command_line or {}
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for option in OPTIONS:
        value, source = _lookup(option, command_line, keywords, environ)
        values[option.name] = (
            option.default if source == "default" else option.read(_called(option.name, source), value)
        )
        sources[option.name] = source
    for name, file in (("secret", SECRET_FILE), ("store", STORE_FILE)):
        values[f"{name}_file"] = environ[file] if sources[name] == file else None
    settings = Settings(**values)
    left_by = {"drain_timeout": "a drain"}
    if not settings.store.startswith("sqlite:"):  # There, a lock shows a death at once.
        left_by["lease_ttl"] = "a dead replica"
    for name, who in left_by.items():
        if settings.max_age <= values[name]:
            age, low = (_placed(each, values[each], sources[each]) for each in ("max_age", name))
            raise ConfigError(f"{age} must exceed {low}: otherwise webhooks left by {who} would be skipped as too old")
    return Resolved(settings, sources, (*_misspelt(environ), *_other_port(settings, sources, environ)))


def inherited() -> dict[str, str]:
    """Return a copy of this process's environment, for a process that it starts."""
    return dict(os.environ)


def check(given: Mapping[str, Any], source: str = "keyword") -> None:
    """Raise ConfigError if a value of one source cannot be used, even if another source overrides it."""
    for option in OPTIONS:
        if given.get(option.name) is not None:
            option.read(_called(option.name, source), given[option.name])


def platform_expects_traffic(environ: Mapping[str, str] | None = None) -> bool:
    """Return True if the environment sets PORT, as platforms do that route outside traffic to it."""
    return bool((os.environ if environ is None else environ).get("PORT"))


def postgres_services(environ: Mapping[str, str] | None = None) -> tuple[str | None, Path, str, str]:
    """Return the PostgreSQL service that the environment names, the file of services, the host and the port.

    Source: PostgreSQL docs, libpq, Environment Variables (PGSERVICE, PGSERVICEFILE, PGHOST, PGPORT).
    """
    environ = os.environ if environ is None else environ
    file = environ.get("PGSERVICEFILE") or os.path.expanduser("~/.pg_service.conf")
    return environ.get("PGSERVICE"), Path(file), environ.get("PGHOST", ""), environ.get("PGPORT", "")


def foreign_environment() -> dict[str, str]:
    """Return the environment without our own settings, for a process that must not inherit them."""
    ours = {variable for option in OPTIONS for variable in (*option.environment, *option.files)}
    return {name: value for name, value in os.environ.items() if name not in ours}


def wants_colour() -> bool:
    """Return True if a terminal may be coloured: NO_COLOR is not set and TERM is not dumb."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def masked(name: str, value: Any) -> str:
    """Return a value for a person to read: only the number of secrets, a URL without its password."""
    if name == "secret":
        return f"{len(value)} set" if value else "none"
    if name == "inspector_token":
        return "set" if value else "none"
    if name == "store" and not value.startswith("sqlite:"):
        return PASSWORDS.sub("***", value)
    if name == "redact":
        return ",".join(value)
    return "" if value is None else str(value)


def _lookup(
    option: Option, command_line: Mapping[str, Any], keywords: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[Any, str]:
    if command_line.get(option.name) is not None:
        return command_line[option.name], "command line"
    if keywords.get(option.name) is not None:
        return keywords[option.name], "keyword"
    named = [variable for variable in (*option.environment, *option.files) if variable in environ]
    if len(named) > 1 and named[-1] in option.files:
        raise ConfigError(f"{named[0]} and {named[-1]} are both set: unset one, since nobody can tell which is meant")
    for variable in named:
        in_file = variable in option.files
        value = read_file(variable, environ[variable]) if in_file else environ[variable]
        if option.name == "secret":
            return (_one_a_line(value) if in_file else value.split(",")), variable
        return value, variable
    return None, "default"


def _called(name: str, source: str) -> str:
    if source == "command line":
        return "--" + name.replace("_", "-")
    return name if source in ("keyword", "default") else source


def _placed(name: str, seconds: float, source: str) -> str:
    return f"{_called(name, source)} ({seconds:g} s{', the default' if source == 'default' else ''})"


def _misspelt(environ: Mapping[str, str]) -> list[str]:
    """Return a warning for each variable that looks like one of ours and is none."""
    alike = [name for name in environ if name.upper().startswith("WHEREBY_")]
    if not alike:
        return []
    ours = {variable for option in OPTIONS for variable in (*option.environment, *option.files) if variable != "PORT"}
    # The likeliest name of a setting whose variable has another.
    meant = {PREFIX + option.name.upper(): option.environment[0] for option in OPTIONS} | {name: name for name in ours}
    wrong = [name for name in alike if name not in ours]
    near = {name: difflib.get_close_matches(name.upper(), meant, 1, ALIKE) for name in wrong}
    return [
        f"{name} is set in the environment, but there is no such setting: did you mean {meant[close[0]]}?"
        for name, close in near.items()
        if close
    ]


def _other_port(settings: Settings, sources: Mapping[str, str], environ: Mapping[str, str]) -> list[str]:
    port = environ.get("PORT")
    if port and sources["port"] in ("command line", "keyword") and port.strip() != str(settings.port):
        return [f"PORT is {port} in the environment, but the {sources['port']} says {settings.port}: using that"]
    return []


LOOPBACK = ("127.0.0.1", "localhost", "::1")

REMEDY = (
    "but there is no secret to prove who is calling: set WHEREBY_WEBHOOK_SECRET to the webhook's secret from Whereby's "
    "dashboard, or accept unsigned deliveries with allow_unsigned=True (--allow-unsigned)"
)


def check_exposure(settings: Settings) -> None:
    """Raise ConfigError if other machines can, or should, reach the trigger without a secret to prove who calls."""
    if settings.signed or settings.allow_unsigned or settings.host in LOOPBACK:
        return
    if settings.host is not None:
        raise ConfigError(f"host {settings.host!r} would serve other machines, {REMEDY}")
    if platform_expects_traffic():
        raise ConfigError(f"PORT is set, so outside traffic is expected here, {REMEDY}")


def check_inspector(settings: Settings, host: str) -> None:
    """Raise ConfigError if other machines could reach the inspector on `host` without a token."""
    if settings.inspector_token is None and host not in LOOPBACK:
        raise ConfigError(
            f"the inspector on {host!r} would show your meetings to other machines, but it has no token: set "
            f"{PREFIX}INSPECTOR_TOKEN to at least {SHORTEST_TOKEN} characters, or serve it on 127.0.0.1"
        )
