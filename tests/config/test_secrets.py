"""Secrets: one or several, never blank, never shown."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
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
    """The environment passes bytes that are not UTF-8 as lone surrogates."""
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


def from_file(folder: Path, content: bytes) -> tuple[str, ...]:
    (folder / "secret").write_bytes(content)
    return resolve({}, {}, {f"{VARIABLE}_FILE": str(folder / "secret")}).settings.secret


@pytest.mark.parametrize(
    ("content", "secrets"),
    [
        (b"one", ("one",)),
        (b"one\n", ("one",)),
        (b"one\r\ntwo\r\n", ("one", "two")),
        (b"one,two\n", ("one", "two")),
        (b"\nnew\n\nold\n", ("new", "old")),
        (b"\xef\xbb\xbfone\n", ("one",)),
        ("sécret".encode(), ("sécret",)),
    ],
)
def test_a_file_holds_one_secret_or_several_one_a_line(
    tmp_path: Path, content: bytes, secrets: tuple[str, ...]
) -> None:
    assert from_file(tmp_path, content) == secrets


@pytest.mark.parametrize("content", [b"", b"\n", b" \n\t\n", b"\xef\xbb\xbf", b"one,"])
def test_a_blank_secret_in_a_file_is_an_error_never_no_secret(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigError, match=f"^{VARIABLE}_FILE holds a blank secret"):
        from_file(tmp_path, content)


@pytest.mark.parametrize(("content", "why"), [(b"a\xff", "is not UTF-8"), (b"a" * 70_000, "is too large")])
def test_a_file_that_cannot_be_a_secret_is_named_and_not_shown(tmp_path: Path, content: bytes, why: str) -> None:
    with pytest.raises(ConfigError, match=f"^{VARIABLE}_FILE names .*secret', which {why}"):
        from_file(tmp_path, content)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{VARIABLE}_FILE names .*nothing', which cannot be read: No such file"):
        resolve({}, {}, {f"{VARIABLE}_FILE": str(tmp_path / "nothing")})


def test_a_variable_and_its_file_together_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{VARIABLE} and {VARIABLE}_FILE are both set: unset one"):
        resolve({}, {}, {VARIABLE: "one", f"{VARIABLE}_FILE": str(tmp_path)})


def test_the_url_of_the_store_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("postgresql://me:secret@db/app\n")
    found = resolve({}, {}, {"WHEREBY_TRIGGER_STORE_FILE": str(tmp_path / "store")})
    assert found.settings.store == "postgresql://me:secret@db/app"
    assert found.sources["store"] == "WHEREBY_TRIGGER_STORE_FILE"


def test_other_settings_are_not_read_from_files(tmp_path: Path) -> None:
    (tmp_path / "port").write_text("9999")
    assert resolve({}, {}, {"WHEREBY_TRIGGER_PORT_FILE": str(tmp_path / "port")}).settings.port == 8080


def test_a_keyword_comes_before_the_file(tmp_path: Path) -> None:
    resolved = resolve({"secret": "mine"}, {}, {f"{VARIABLE}_FILE": str(tmp_path / "nothing")})
    assert (resolved.settings.secret, resolved.settings.secret_file) == (("mine",), None)


@pytest.mark.anyio
async def test_what_runs_works_on_when_the_file_of_its_secret_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_text("a-secret-of-enough-characters")
    monkeypatch.setenv("WHEREBY_WEBHOOK_SECRET_FILE", str(file))
    trigger = Trigger(port=0, host="127.0.0.1", store=f"sqlite:///{tmp_path}/webhooks.db")
    trigger.when("room.client.joined")(lambda webhook: True)
    heard: list[object] = []
    trigger.on("mine", heard.append)
    transport = httpx.ASGITransport(trigger.inspector, client=("127.0.0.1", 1))
    async with trigger, httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8088") as client:
        file.unlink()
        assert (await client.get("/health")).status_code == 200
        assert trigger.port > 0
        assert await asyncio.to_thread(asyncio.run, trigger.emit("mine", "from another thread"))
        await trigger.inspector.close()
    assert heard == ["from another thread"]
