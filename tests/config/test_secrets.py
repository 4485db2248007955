"""Secrets: one or several, never blank, never shown."""

from typing import Any

import pytest

from whereby_trigger import ConfigError, Trigger
from whereby_trigger.config import masked, resolve
from whereby_trigger.store.factory import store_for

VARIABLE = "WHEREBY_WEBHOOK_SECRET"


def from_environment(value: str) -> tuple[str, ...]:
    return resolve({}, {}, {VARIABLE: value}).settings.secret


def test_the_variable_takes_several_secrets_for_a_rotation() -> None:
    assert from_environment("one") == ("one",)
    assert from_environment("one,two") == ("one", "two")
    assert from_environment(" one , two\n") == ("one", "two")


def test_a_keyword_takes_one_secret_or_a_sequence() -> None:
    assert resolve({"secret": "one,two"}, {}, {}).settings.secret == ("one,two",)
    assert resolve({"secret": ["one", "two"]}, {}, {}).settings.secret == ("one", "two")
    assert resolve({"secret": ("one",)}, {}, {}).settings.secret == ("one",)


def test_no_secret_anywhere_is_no_secret() -> None:
    settings = resolve({}, {}, {}).settings
    assert settings.secret == ()
    assert not settings.signed


@pytest.mark.parametrize("value", ["", " ", ",", "one,", ",one", "one,,two", "one, ,two"])
def test_a_blank_secret_in_the_environment_is_an_error_never_no_secret(value: str) -> None:
    with pytest.raises(ConfigError, match=f"^{VARIABLE} holds a blank secret") as caught:
        from_environment(value)
    assert "remove the variable" in str(caught.value)
    assert "one" not in str(caught.value)


@pytest.mark.parametrize("value", ["", " ", ["one", ""], ["\t"]])
def test_a_blank_secret_in_a_keyword_is_an_error_even_where_unsigned_is_allowed(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^secret holds a blank secret"):
        Trigger(secret=value, allow_unsigned=True)


@pytest.mark.parametrize("value", [[], (), b"bytes", [b"bytes"], 1, {"one"}, [None]])
def test_what_is_no_secret_is_an_error(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^secret must be a secret or a sequence of secrets") as caught:
        resolve({"secret": value}, {}, {})
    assert "bytes" not in str(caught.value)


def test_a_secret_that_nothing_could_be_signed_with_is_an_error() -> None:
    """The environment hands bytes that are not UTF-8 over as lone surrogates."""
    with pytest.raises(ConfigError, match=f"^{VARIABLE} holds a secret that is not UTF-8"):
        from_environment("a\udcff")


def test_secrets_are_shown_by_their_number_only() -> None:
    assert masked("secret", ("hunter2", "hunter3")) == "2 set"
    assert masked("secret", ("hunter2",)) == "1 set"
    assert masked("secret", ()) == "none"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("sqlite:///robin@home/a.db", "sqlite:///robin@home/a.db"),
        ("postgresql://db.example/hooks", "postgresql://db.example/hooks"),
        ("postgresql://robin:hunter2@db.example/hooks", "postgresql://***@db.example/hooks"),
        ("postgresql://robin:hunter@2@db.example/hooks", "postgresql://***@db.example/hooks"),
        ("postgres://hunter2@db.example", "postgres://***@db.example"),
        ("postgresql://db.example/hooks?password=hunter2", "postgresql://db.example/hooks?***"),
        ("postgresql://robin@db.example/hooks?sslmode=require", "postgresql://***@db.example/hooks?***"),
    ],
)
def test_a_store_is_shown_without_its_password(url: str, shown: str) -> None:
    assert masked("store", url) == shown


def test_a_store_of_no_known_kind_is_an_error_without_its_password() -> None:
    with pytest.raises(ConfigError, match="is of no known kind") as caught:
        store_for("mysql://robin:hunter2@db.example/hooks")
    assert "hunter2" not in str(caught.value)


def test_other_values_are_shown_as_they_are() -> None:
    assert masked("port", 8080) == "8080"
    assert masked("host", None) == ""
