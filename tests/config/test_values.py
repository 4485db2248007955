"""The values that a setting accepts; any other is an error that names its source."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import text

from whereby_trigger import ConfigError
from whereby_trigger.config import OPTIONS, REDACTABLE, Settings, resolve
from whereby_trigger.testing import webhook
from whereby_trigger.webhook import PERSONAL, room_of

WRONG: dict[str, list[Any]] = {
    "port": ["", "http", "-1", "65536", "8080.5", "1e3", -1, 65_536, 80.0, True, b"80", [80]],
    "host": ["", "  ", 1, b"localhost"],
    "path": ["", "hook", "/a?b", "/a#b", "/livez", "/readyz", "/a%20b", "/\udcff", "/a\ud83d", 1],
    "subdomain": ["", " ", 1, "../x", "a.b", "evil.example/x?", "-a", "a-", "a_b", "é", "a" * 64, "a\udcff", "a\n.b"],
    "allow_unsigned": ["", "maybe", "2", 1, 0, [True]],
    "tolerance": ["", "soon", "0", "nan", "inf", "-5", 0, True, float("nan"), float("inf"), timedelta(0), [1]],
    "max_body": ["", "256k", "1023", 1023, 65 * 1024 * 1024, 2048.0, True],
    "store": ["", " ", 1],
    "spill": ["", " ", 1, "spill.db", "on", "postgresql://db/spill"],
    "retention": ["", "59", 59, timedelta(seconds=59)],
    "body_retention": ["", "59", 59, True],
    "redact": ["name", "display_name", ["displayName", 1], 1, "displayName;metadata"],
    "max_age": ["", "0", 0, timedelta(days=-1), 10**400],
    "predicate_timeout": ["", "0", 0, "forever"],
    "drain_timeout": ["", "-1", -1, timedelta(seconds=-1)],
    "inspector": ["", "8080", ":8080", "127.0.0.1", "127.0.0.1:65536", "::1:8080", "http://127.0.0.1:80", "a@b:1", 1],
    "inspector_actions": ["", "maybe", 1],
    "inspector_reveal": ["", "maybe", 0],
}


def variable_of(name: str) -> str:
    (option,) = (option for option in OPTIONS if option.name == name)
    return option.environment[0]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_value_that_cannot_be_used_is_an_error_that_names_it_and_its_place(name: str, value: Any) -> None:
    places: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, str]]] = {
        f"--{name.replace('_', '-')}": ({}, {name: value}, {}),
        name: ({name: value}, {}, {}),
    }
    if isinstance(value, str):
        places[variable_of(name)] = ({}, {}, {variable_of(name): value})
    for place, sources in places.items():
        with pytest.raises(ConfigError) as caught:
            resolve(*sources)
        assert str(caught.value).startswith(f"{place} must ")
        assert repr(value) in str(caught.value)


def test_a_bad_port_of_the_platform_is_blamed_on_the_platform() -> None:
    with pytest.raises(ConfigError, match=r"^PORT must be a whole number from 0 to 65535, not 'eighty'"):
        resolve({}, {}, {"PORT": "eighty"})


def read(**keywords: Any) -> Settings:
    return resolve(keywords, {}, {}).settings


def test_fields_to_redact_are_a_sequence_or_text_with_commas() -> None:
    assert read(redact=("metadata", "displayName")).redact == ("displayName", "metadata")
    assert read(redact="externalId, participantId").redact == ("externalId", "participantId")
    assert resolve({}, {}, {"WHEREBY_TRIGGER_REDACT": ""}).settings.redact == ()
    assert set(REDACTABLE) == set(PERSONAL)


def test_durations_are_seconds_or_timedeltas() -> None:
    assert read(tolerance=1.5).tolerance == 1.5
    assert read(tolerance=timedelta(minutes=2)).tolerance == 120
    assert read(retention=timedelta(days=1)).retention == 86_400
    assert resolve({}, {}, {"WHEREBY_TRIGGER_TOLERANCE": " 2.5 "}).settings.tolerance == 2.5
    assert read(drain_timeout=0).drain_timeout == 0


@pytest.mark.parametrize(
    ("word", "meaning"),
    [("1", True), ("true", True), ("YES", True), (" on ", True), ("0", False), ("False", False), ("no", False)],
)
def test_a_flag_is_read_from_the_usual_words(word: str, meaning: bool) -> None:
    assert resolve({}, {}, {"WHEREBY_TRIGGER_ALLOW_UNSIGNED": word}).settings.allow_unsigned is meaning


def test_white_space_around_a_text_is_no_part_of_it() -> None:
    assert read(host=" 127.0.0.1\n").host == "127.0.0.1"
    assert resolve({}, {}, {"PORT": " 80\n"}).settings.port == 80


def test_a_path_may_hold_an_unguessable_segment() -> None:
    assert read(path="/hooks/3f9a-_~.!Kx/").path == "/hooks/3f9a-_~.!Kx/"


@pytest.mark.parametrize(("max_age", "drain_timeout"), [(3600, 3600), (10, 11), (timedelta(hours=1), 3601)])
def test_a_drain_that_could_outlast_what_it_hands_over_is_an_error(max_age: Any, drain_timeout: Any) -> None:
    with pytest.raises(ConfigError, match=r"max_age \(\S+ s\) must exceed drain_timeout \(\S+ s\)"):
        read(max_age=max_age, drain_timeout=drain_timeout)


def test_a_lease_that_could_outlast_what_a_dead_replica_leaves_is_an_error_on_postgresql() -> None:
    settings = {"max_age": 30, "drain_timeout": 5}
    with pytest.raises(ConfigError, match=r"max_age \(30 s\) must exceed lease_ttl \(30 s, the default\)"):
        read(store="postgresql://db/trigger", **settings)
    assert read(store="postgresql://db/trigger", lease_ttl=29, **settings).max_age == 30
    assert read(**settings).max_age == 30


def test_settings_that_contradict_each_other_are_named_with_their_places() -> None:
    environ = {"WHEREBY_TRIGGER_MAX_AGE": "60"}
    with pytest.raises(ConfigError, match=r"WHEREBY_TRIGGER_MAX_AGE .*drain_timeout.*default"):
        resolve({}, {}, environ)
    with pytest.raises(ConfigError, match=r"WHEREBY_TRIGGER_MAX_AGE .*--drain-timeout"):
        resolve({}, {"drain_timeout": 70}, environ)


def test_a_server_without_a_secret_listens_on_this_machine_only() -> None:
    assert read().listen_host == "127.0.0.1"
    assert read(secret="s").listen_host == "0.0.0.0"
    assert read(allow_unsigned=True).listen_host == "0.0.0.0"
    assert read(secret="s", host="127.0.0.1").listen_host == "127.0.0.1"


@pytest.mark.parametrize("subdomain", ["acme", "JoeBloggsInc", "a", "a-1", "9", "x" * 63])
def test_a_subdomain_is_one_host_label(subdomain: str) -> None:
    assert read(subdomain=f" {subdomain} ").subdomain == subdomain
    assert room_of(webhook("room.client.joined", subdomain=subdomain)) is not None


@given(text())
def test_no_subdomain_is_taken_that_names_no_room(subdomain: str) -> None:
    try:
        taken = read(subdomain=subdomain).subdomain
    except ConfigError:
        return
    assert taken is not None
    assert room_of(webhook("room.client.joined", subdomain=taken)) is not None
