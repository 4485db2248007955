"""The file that a URL means."""

from pathlib import Path

import pytest

from whereby_trigger.errors import ConfigError
from whereby_trigger.store.sqlite.connection import path_of

HOME = Path("/home/robin")


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(HOME))
    return tmp_path


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///a.db", "{cwd}/a.db"),
        ("sqlite:///./a.db", "{cwd}/a.db"),
        ("sqlite:///data/a.db", "{cwd}/data/a.db"),
        ("sqlite:////var/lib/a.db", "/var/lib/a.db"),
        ("sqlite:///~/a.db", "/home/robin/a.db"),
        ("sqlite:///my%20data/caf%C3%A9.db", "{cwd}/my data/café.db"),
        ("sqlite:///what%3F.db", "{cwd}/what?.db"),
        ("sqlite:///100%25.db", "{cwd}/100%.db"),
        ("sqlite:///a b#c.db", "{cwd}/a b#c.db"),
        ("sqlite:///Grüße.db", "{cwd}/Grüße.db"),
    ],
)
def test_a_url_names_a_file(somewhere: Path, url: str, expected: str) -> None:
    assert path_of(url) == Path(expected.format(cwd=somewhere))


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqlite:///a.db?mode=memory", "options after '?'"),
        ("sqlite:///a.db?synchronous=off", "options after '?'"),
        ("sqlite:///?", "options after '?'"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///a%00b", "names no file"),
        ("sqlite://a.db", "no SQLite URL: write sqlite:///file.db, with four slashes if absolute"),
        ("sqlite:a.db", "no SQLite URL"),
        ("sqlite3:///a.db", "no SQLite URL"),
        ("sqlite:///~nobody-by-this-name/a.db", "no such user"),
    ],
)
def test_a_url_that_names_no_file_is_an_error_with_what_to_write(url: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason.replace("?", r"\?")):
        path_of(url)


def test_a_path_stays_the_same_where_the_program_changes_its_folder(
    somewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = path_of("sqlite:///a.db")
    (somewhere / "other").mkdir()
    monkeypatch.chdir(somewhere / "other")
    assert path.is_absolute()
    assert path == somewhere / "a.db"
