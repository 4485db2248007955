"""Times as people write them, for --since and --until."""

import os
import time
from collections.abc import Iterator
from datetime import datetime, timedelta

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whereby_trigger.cli.arguments import time_range

ZONE = "Europe/Oslo"


@pytest.fixture(autouse=True, scope="module")
def zone() -> Iterator[None]:
    """Set a time zone with daylight saving time."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = ZONE
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone()


NOW = "2026-11-29 08:30"


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("22:14", "2026-11-28 22:14"),
        ("22:14:05", "2026-11-28 22:14:05"),
        ("8:15", "2026-11-29 08:15"),
        ("08:30", "2026-11-29 08:30"),
        ("08:31", "2026-11-28 08:31"),
        ("2026-11-28 22:14", "2026-11-28 22:14"),
        ("2026-11-28T22:14:30", "2026-11-28 22:14:30"),
        ("2026-11-28", "2026-11-28 00:00"),
        ("2026-07-01 22:14", "2026-07-01T20:14:00+00:00"),
        ("2026-11-28T22:14:00Z", "2026-11-28T22:14:00+00:00"),
        ("2026-11-28T22:14:00.250-05:00", "2026-11-28T22:14:00.250-05:00"),
        ("2h", "2026-11-29 06:30"),
        ("90m", "2026-11-29 07:00"),
        ("1h30m", "2026-11-29 07:00"),
        ("30s", "2026-11-29 08:29:30"),
        ("7d", "2026-11-22 08:30"),
        ("1w", "2026-11-22 08:30"),
        (" 2h ", "2026-11-29 06:30"),
    ],
)
def test_a_time_is_read_as_people_write_it(text: str, means: str) -> None:
    assert time_range(text, None, at(NOW)) == (at(means).timestamp(), None)
    assert time_range(None, text, at(NOW)) == (None, at(means).timestamp())


@pytest.mark.parametrize(
    ("since", "until", "end"),
    [
        ("22:00", "23:00", "2026-11-28 23:00"),
        ("08:00", "09:00", "2026-11-29 09:00"),
        ("23:30", "00:30", "2026-11-29 00:30"),
        ("2026-11-20 22:00", "23:00", "2026-11-20 23:00"),
        ("2026-11-20 22:00", "21:00", "2026-11-21 21:00"),
        ("2d", "1d", "2026-11-28 08:30"),
    ],
)
def test_a_time_of_day_that_ends_a_range_is_the_next_one_after_its_start(since: str, until: str, end: str) -> None:
    assert time_range(since, until, at(NOW))[1] == at(end).timestamp()


def test_a_day_ago_is_24_hours_ago_when_the_clocks_change() -> None:
    changed = at("2026-10-25 12:00")
    assert time_range("1d", None, changed)[0] == (changed - timedelta(hours=24)).timestamp()
    assert time_range("12:00", None, changed)[0] == changed.timestamp()


def test_a_time_of_day_that_comes_twice_when_the_clocks_change_is_the_nearest_one() -> None:
    first, second = at("2026-10-25T02:10:00+02:00"), at("2026-10-25T02:10:00+01:00")
    assert time_range("02:10", None, first + timedelta(minutes=10))[0] == first.timestamp()
    assert time_range("02:10", None, second - timedelta(minutes=10))[0] == first.timestamp()
    assert time_range("02:10", None, second + timedelta(minutes=10))[0] == second.timestamp()
    end = (second + timedelta(minutes=5)).timestamp()
    assert time_range("02:10", "02:15", second + timedelta(minutes=10)) == (second.timestamp(), end)


def test_a_time_of_day_that_is_left_out_when_the_clocks_change_is_that_of_the_day_before_or_an_hour_later() -> None:
    now = at("2026-03-29T03:10:00+02:00")
    assert time_range("02:30", None, now)[0] == at("2026-03-28 02:30").timestamp()
    assert time_range("01:00", "02:30", now)[1] == at("2026-03-29 03:30").timestamp()


WRONG = [
    "",
    "yesterday",
    "24:00",
    "22",
    "2214",
    "22:60",
    "2 h",
    "2y",
    "h",
    "-2h",
    "2026-13-01",
    "2026-11-28 25:00",
    "٢h",
]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_time_is_a_wrong_call_that_shows_how_to_write_one(text: str) -> None:
    for option, since, until in (("--since", text, None), ("--until", None, text), ("--until", "2h", text)):
        with pytest.raises(click.UsageError, match=f"^{option} .*is no time: write 22:14, '2026-11-28 22:14', 2h"):
            time_range(since, until, at(NOW))


def test_a_range_that_ends_before_it_begins_is_a_wrong_call() -> None:
    with pytest.raises(click.UsageError, match="--until 2h is not after --since 1h"):
        time_range("1h", "2h", at(NOW))


def test_no_options_are_no_range() -> None:
    assert time_range(None, None) == (None, None)


@given(st.text() | st.from_regex(r"[0-9]{1,12}[wdhms]", fullmatch=True) | st.datetimes().map(str))
def test_any_text_is_a_time_that_a_store_can_hold_or_a_wrong_call(text: str) -> None:
    try:
        (since, _) = time_range(text, None, at(NOW))
    except click.UsageError:
        return
    assert since is not None
    assert 0 <= since <= 253_402_300_800
