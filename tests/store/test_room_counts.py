"""What the counts of a room mean together, in any order and any grouping."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.arrivals import NOW, ROOM
from tests.support.counts import at, count
from whereby_trigger.store import UNKNOWN, Count, Presence
from whereby_trigger.store.presence import (
    EARLIEST,
    UNCOUNTED,
    RoomCounts,
    counts_of,
    merge,
    merged,
    presence_of,
    together,
)

ONE_EACH = st.lists(
    st.builds(count, st.integers(0, 9), st.integers(UNCOUNTED, 2), session_id=st.sampled_from([None, "s", "t"])),
    min_size=1,
    max_size=8,
    unique_by=lambda one: one.at,
)
"""Counts, no two of the same time."""


def said_by(counts: list[Count]) -> RoomCounts:
    (said,) = together(counts)
    return said


def newest(counts: list[Count]) -> Count:
    return max(enumerate(counts), key=lambda one: (one[1].at, one[0]))[1]


def really_since(counts: list[Count]) -> float:
    """Return the time of the first of the newest counts that all have the same number of humans."""
    since = newest(counts)
    for one in sorted(counts, key=lambda one: one.at, reverse=True):
        if one.humans != since.humans:
            break
        since = one
    return since.at


@given(ONE_EACH, st.randoms(use_true_random=False))
def test_in_any_order_and_repeated_the_counts_say_what_the_newest_says(counts: list[Count], random: object) -> None:
    arrived = counts + counts[::2]
    random.shuffle(arrived)  # type: ignore[attr-defined]
    said, last = said_by(arrived), newest(counts)
    assert (said.humans, said.bots, said.session_id, said.changed_at) == (
        last.humans,
        last.bots,
        last.session_id,
        last.at,
    )
    assert really_since(counts) <= said.humans_since <= last.at


@given(ONE_EACH)
def test_in_order_the_number_of_humans_has_its_value_since_the_first_that_said_it(counts: list[Count]) -> None:
    counts.sort(key=lambda one: one.at)
    assert said_by(counts).humans_since == really_since(counts)


@given(ONE_EACH, st.integers(0, 8))
def test_counts_that_came_in_order_say_the_same_however_they_are_grouped(counts: list[Count], split: int) -> None:
    counts.sort(key=lambda one: one.at)
    groups = [group for group in (counts[:split], counts[split:]) if group]
    parts = [said_by(group) for group in groups]
    assert (parts[0] if len(parts) == 1 else merged(*parts)) == said_by(counts)


@given(st.lists(st.builds(count, st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=6))
def test_what_is_merged_a_second_time_changes_nothing(counts: list[Count]) -> None:
    said = said_by(counts)
    for last in (said_by(counts[-1:]), said):
        assert merged(merged(said, last), last) == merged(said, last)


def test_of_two_counts_of_the_same_time_the_later_arrival_counts() -> None:
    assert said_by([count(0, 1), count(0, 2)]).humans == 2
    assert said_by([count(0, 2), count(0, 1)]).humans == 1


def test_of_counts_of_the_same_time_only_what_came_later_began_then() -> None:
    assert said_by([count(5, 1), count(5, 2), count(9, 2)]).humans_since == NOW + 5
    assert said_by([count(5, 2), count(9, 2), count(5, 1)]).humans_since == NOW + 9


def test_a_late_count_that_shows_an_interruption_makes_the_time_begin_after_it() -> None:
    said = said_by([count(0, 2), count(20, 2), count(10, 1)])
    assert (said.humans, said.humans_since, said.changed_at) == (2, NOW + 20, NOW + 20)


def test_a_late_count_that_says_the_same_makes_the_time_begin_earlier() -> None:
    assert said_by([count(0, 1), count(20, 2), count(10, 2)]).humans_since == NOW + 10


@given(ONE_EACH)
def test_presence_merges_counts_as_a_store_does(counts: list[Count]) -> None:
    counts.sort(key=lambda one: one.at)
    presence = UNKNOWN
    for one in counts:
        presence = merge(presence, one)
    assert presence == presence_of(said_by(counts))


def test_presence_has_times_in_utc() -> None:
    presence = merge(merge(UNKNOWN, count(0, 2, 1, session_id="s")), count(5.5, 2, 0, session_id="t"))
    assert presence == Presence(2, 0, at(0), at(5.5), "t")


@pytest.mark.parametrize(
    ("created_at", "shown"),
    [
        (datetime.max.replace(tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (datetime.min.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)),
    ],
)
def test_every_time_that_a_webhook_can_say_can_be_shown(created_at: datetime, shown: datetime) -> None:
    assert created_at.timestamp() >= EARLIEST
    assert presence_of(counts_of(Count(ROOM, 1, 0, created_at.timestamp(), None))).changed_at == shown
