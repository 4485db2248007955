"""The source of a setting: command line before keyword before environment before default."""

from typing import Any

import pytest

from whereby_trigger import ConfigError, Trigger
from whereby_trigger.config import NAMES, OPTIONS, Settings, platform_expects_traffic, resolve

# Three values of each setting, all different and none the default.
VALUES: dict[str, tuple[Any, Any, str]] = {
    "port": (1, 2, "3"),
    "host": ("::1", "127.0.0.1", "localhost"),
    "path": ("/a", "/b", "/c"),
    "subdomain": ("a", "b", "c"),
    "secret": ("a", "b", "c"),
    "allow_unsigned": (True, True, "true"),
    "tolerance": (1, 2, "3"),
    "max_body": (2001, 2002, "2003"),
    "store": ("sqlite:///a", "sqlite:///b", "sqlite:///c"),
    "spill": ("sqlite:///a", "sqlite:///b", "sqlite:///c"),
    "metrics": ("a:1", "b:2", "c:3"),
    "retention": (61, 62, "63"),
    "body_retention": (61, 62, "63"),
    "redact": ("displayName", "metadata", "externalId"),
    "max_age": (9001, 9002, "9003"),
    "predicate_timeout": (1, 2, "3"),
    "lease_ttl": (1, 2, "3"),
    "max_rooms": (1, 2, "3"),
    "stop_grace": (1, 2, "3"),
    "drain_timeout": (1, 2, "3"),
    "inspector": ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"),
    "inspector_token": ("a" * 16, "b" * 16, "c" * 16),
    "inspector_actions": (False, False, "false"),
    "inspector_reveal": (False, False, "false"),
}


def value_of(settings: Settings, name: str) -> Any:
    value = getattr(settings, name)
    return value[0] if isinstance(value, tuple) else value


def test_every_setting_is_tried() -> None:
    assert set(VALUES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_command_line_comes_before_a_keyword_before_the_environment_before_the_default(name: str) -> None:
    (option,) = (option for option in OPTIONS if option.name == name)
    first, second, third = VALUES[name]
    command_line, keyword, environ = {name: first}, {name: second}, {option.environment[0]: third}

    def resolved(*sources: dict[str, Any]) -> tuple[Any, str]:
        found = resolve(sources[1], sources[0], sources[2])
        return value_of(found.settings, name), found.sources[name]

    assert resolved(command_line, keyword, environ) == (first, "command line")
    assert resolved({}, keyword, environ) == (second, "keyword")
    assert resolved({name: None}, {name: None}, environ) == (
        third if isinstance(first, str) else first if isinstance(first, bool) else float(third),
        option.environment[0],
    )
    found = resolve({}, {}, {})
    assert getattr(found.settings, name) == option.default
    assert found.sources[name] == "default"


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("port", "secret")])
def test_a_setting_is_read_from_the_variable_of_its_name(name: str) -> None:
    variable = f"WHEREBY_TRIGGER_{name.upper()}"
    assert resolve({}, {}, {variable: VALUES[name][2]}).sources[name] == variable


def test_false_and_zero_are_given_values() -> None:
    environ = {"WHEREBY_TRIGGER_ALLOW_UNSIGNED": "true", "PORT": "80", "WHEREBY_TRIGGER_DRAIN_TIMEOUT": "9"}
    settings = resolve({"allow_unsigned": False, "port": 0, "drain_timeout": 0}, {}, environ).settings
    assert (settings.allow_unsigned, settings.port, settings.drain_timeout) == (False, 0, 0)


def test_a_platforms_port_is_the_default_and_our_own_variable_comes_before_it() -> None:
    assert resolve({}, {}, {}).settings.port == 8080
    assert resolve({}, {}, {"PORT": "5000"}).settings.port == 5000
    assert resolve({}, {}, {"PORT": "5000", "WHEREBY_TRIGGER_PORT": "6000"}).settings.port == 6000


@pytest.mark.parametrize("source", ["command line", "keyword"])
def test_a_port_that_differs_from_the_platforms_is_warned_about(source: str) -> None:
    given = {"port": 9000}
    found = resolve(*((given, {}) if source == "keyword" else ({}, given)), {"PORT": "5000"})
    assert found.settings.port == 9000
    (warning,) = found.warnings
    assert warning == f"PORT is 5000 in the environment, but the {source} says 9000: using that"


@pytest.mark.parametrize("port", ["9000", " 9000"])
def test_a_port_that_is_the_platforms_is_not_warned_about(port: str) -> None:
    assert resolve({"port": 9000}, {}, {"PORT": port}).warnings == ()


def test_a_platform_expects_traffic_where_port_is_set() -> None:
    assert platform_expects_traffic({"PORT": "80"})
    assert not platform_expects_traffic({"WHEREBY_TRIGGER_PORT": "80"})
    assert not platform_expects_traffic({})


def test_a_wrong_keyword_is_an_error_where_it_is_written() -> None:
    with pytest.raises(ConfigError, match=r"^port must be a whole number"):
        Trigger(port=70_000)


def test_settings_that_agree_only_with_the_environment_are_no_error_where_they_are_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WHEREBY_TRIGGER_MAX_AGE", "100000")
    assert Trigger(drain_timeout=50_000).resolve().settings.max_age == 100_000
    monkeypatch.setenv("WHEREBY_TRIGGER_DRAIN_TIMEOUT", "10")
    assert Trigger(max_age=60).resolve().settings.drain_timeout == 10


def test_settings_are_read_when_they_are_needed_not_when_the_trigger_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHEREBY_TRIGGER_PORT", "nonsense")
    trigger = Trigger()
    monkeypatch.setenv("WHEREBY_TRIGGER_PORT", "5000")
    assert trigger.port == 5000
    trigger.override({"port": 6000, "host": None})
    assert trigger.port == 6000
