"""The URL of a database: what the driver gets, what a person sees, and what is refused unread."""

from pathlib import Path

import pytest

from whereby_trigger.config import postgres_services
from whereby_trigger.errors import ConfigError
from whereby_trigger.store.postgres.address import Services, address_of


def described(folder: Path, text: str) -> Services:
    file = folder / "services.conf"
    file.write_text(text, encoding="utf-8")
    return Services(file=file)


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("postgresql://", "postgresql://"),
        ("postgresql:///webhooks", "postgresql:///webhooks"),
        ("postgres://db.example", "postgresql://db.example"),
        ("postgresql://user:hush@db.example:5433/webhooks", "postgresql://user@db.example:5433/webhooks"),
        ("postgresql://user:hush@a.example,b.example:5433/x", "postgresql://user@a.example,b.example:5433/x"),
        ("postgresql://user:hush@[::1]:5432/x", "postgresql://user@[::1]:5432/x"),
        ("postgresql://u:hush@db.example/x?sslmode=disable", "postgresql://u@db.example/x?sslmode=disable"),
        ("postgresql://db.example/x?user=u&password=hush", "postgresql://db.example/x?user=u"),
        ("postgresql:///x?host=/run/postgresql", "postgresql:///x?host=/run/postgresql"),
        ("postgresql://u:hush@%2Frun%2Fpostgresql/x?pooler=yes", "postgresql://u@%2Frun%2Fpostgresql/x"),
    ],
)
def test_a_person_is_shown_where_it_is_and_no_password(url: str, location: str) -> None:
    assert address_of(url).location == location


@pytest.mark.parametrize(
    "password", ["hush/1", "1/hush", "hush#1", "hush?1", "hu@sh", "12?hush=1@", "hush:1/", "[hush", "hush]"]
)
def test_a_password_whose_characters_should_be_escaped_is_refused_and_not_repeated(password: str) -> None:
    with pytest.raises(ConfigError, match="reserved characters as %XX") as refusal:
        address_of(f"postgresql://user:{password}@db.example/webhooks")
    assert "hush" not in str(refusal.value)


@pytest.mark.parametrize("url", ["postgresql:user:hush@db.example/x", "postgresql:/hush", "postgresql://h:x/hush"])
def test_a_url_of_another_form_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read: write postgresql://user:password@host/database") as refusal:
        address_of(url)
    assert "hush" not in str(refusal.value)


def test_whether_a_pooler_is_between_may_be_told_and_is_kept_from_the_driver() -> None:
    url = "postgresql://db.example/x"
    assert [address_of(url + end).pooler for end in ("", "?pooler=yes", "?pooler=no")] == [None, True, False]
    assert address_of(f"{url}?pooler=yes&sslmode=require").dsn == f"{url}?sslmode=require"
    with pytest.raises(ConfigError, match="write pooler=yes or pooler=no, or leave it out"):
        address_of(f"{url}?pooler=perhaps")


def test_how_libpq_is_to_connect_is_kept_from_the_driver_that_would_take_it_for_a_setting() -> None:
    url = "postgresql://db.example/x?connect_timeout=10&keepalives=1&application_name=mine"
    assert address_of(url).dsn == "postgresql://db.example/x?application_name=mine"


def test_a_service_fills_in_what_the_url_leaves_out(tmp_path: Path) -> None:
    text = "# ours\n[prod]\nhost=db.example\nport=5433\nuser=app\ndbname=webhooks\npassword=100%hush\n"
    address = address_of("postgresql:///other?service=prod", described(tmp_path, text))
    assert address.location == ("postgresql:///other?host=db.example&port=5433&user=app&dbname=webhooks&service=prod")
    assert address.dsn == ("postgresql:///other?host=db.example&port=5433&user=app&dbname=webhooks&password=100%25hush")


def test_the_environment_may_name_the_service(tmp_path: Path) -> None:
    services = described(tmp_path, "[prod]\nhost=db.example\n[test]\nhost=test.example\n")
    default = services._replace(default="prod")
    assert "host=db.example" in address_of("postgresql://", default).dsn
    assert "host=test.example" in address_of("postgresql://?service=test", default).dsn


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[other]\nhost=h\n", "does not describe it: add \\[prod\\] to it"),
        ("password=hush\n", "cannot be read: write \\[name\\] and key=value lines"),
    ],
)
def test_a_service_that_is_not_described_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refusal:
        address_of("postgresql://?service=prod", described(tmp_path, text))
    assert "hush" not in str(refusal.value)


def test_a_service_file_that_is_missing_is_named(tmp_path: Path) -> None:
    missing = Services(file=tmp_path / "none.conf")
    with pytest.raises(ConfigError, match=r"none\.conf does not exist or cannot be read"):
        address_of("postgresql://?service=prod", missing)


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://u:p@a.example:5433,b.example/x", ("a.example", "b.example")),
        ("postgresql://[::1]:5433/x", ("::1",)),
        ("postgresql:///x?host=a.example,b.example", ("a.example", "b.example")),
        ("postgresql:///x?host=/run/postgresql", ()),
        ("postgresql://%2Frun%2Fpostgresql:5433/x", ()),
        ("postgresql://", ()),
    ],
)
def test_the_names_to_look_up_are_those_of_its_hosts(url: str, hosts: tuple[str, ...]) -> None:
    assert address_of(url).hosts == hosts


@pytest.mark.parametrize(
    ("url", "hosts"),
    [("postgresql://", ("b.example",)), ("postgresql://a.example", ("a.example",)), ("postgresql:///x?host=/run", ())],
)
def test_the_environment_names_the_host_where_the_url_does_not(url: str, hosts: tuple[str, ...]) -> None:
    assert address_of(url, Services(*postgres_services({"PGHOST": "b.example"}))).hosts == hosts


@pytest.mark.parametrize(
    ("url", "environment", "others"),
    [
        ("postgresql://a", {}, ()),
        (
            "postgresql://u:p@a:1,b:2,c/x?sslmode=require",
            {},
            (
                "postgresql://u:p@b:2,c,a:1/x?sslmode=require&target_session_attrs=read-write",
                "postgresql://u:p@c,a:1,b:2/x?sslmode=require&target_session_attrs=read-write",
            ),
        ),
        (
            "postgresql:///x?host=a,/run&port=1,2",
            {},
            ("postgresql:///x?host=%2Frun%2Ca&port=2%2C1&target_session_attrs=read-write",),
        ),
        (
            "postgresql:///x",
            {"PGHOST": "a,b", "PGPORT": "5433"},
            ("postgresql:///x?target_session_attrs=read-write&host=b%2Ca",),
        ),
        ("postgresql://a,b/x", {"PGPORT": "1,2"}, ()),
    ],
)
def test_each_of_several_hosts_may_come_first_with_its_port(
    url: str, environment: dict[str, str], others: tuple[str, ...]
) -> None:
    assert address_of(url, Services(*postgres_services(environment))).others == others
