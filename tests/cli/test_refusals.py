"""`refusals`: the deliveries that were refused, for people and for programs, from every kind of store."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from whereby_trigger.store import RefusalCount, RefusalReason
from whereby_trigger.store.factory import store_for

NOW = int(time.time()) // 60 * 60


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/whereby-trigger.db"
    asyncio.run(fill(url))
    return url


async def fill(url: str) -> None:
    """Store what two replicas refused now, and one of them three hours ago and ten days ago."""
    store = store_for(url)
    await store.open(lambda: None)
    wrong, path = RefusalReason.WRONG_SIGNATURE, RefusalReason.WRONG_PATH
    counts = [
        RefusalCount(NOW, wrong, "one", 401, 5),
        RefusalCount(NOW, wrong, "two", 401, 3),
        RefusalCount(NOW - 3 * 3600, path, "one", 404, 7),
        RefusalCount(NOW - 10 * 86400, "what a newer program says", "one", 0, 1),
    ]
    await store.add_refusals(counts)
    await store.close()


def rows(shown: str) -> list[list[str]]:
    return [line.split("  ") for line in shown.splitlines()]


def test_refusals_are_listed_by_minute_newest_first_and_added_up_over_replicas(call: Call, url: str) -> None:
    ended = call("refusals", "--store", url)
    assert ended.returncode == 0
    header, *listed = [[cell.strip() for cell in row if cell.strip()] for row in rows(ended.stdout)]
    assert header == ["minute", "answer", "reason", "refused", "replicas"]
    assert [row[1:] for row in listed] == [["401", "wrong signature", "8", "2"], ["404", "wrong path", "7", "1"]]


def test_the_remedy_for_a_kind_of_refusal_is_said_once(call: Call, url: str) -> None:
    said = call("refusals", "--store", url).stderr
    assert said.count("wrong signature: signed with another secret: is WHEREBY_WEBHOOK_SECRET") == 1
    assert said.count("wrong path: sent to another path: is the URL right") == 1


@pytest.mark.parametrize(("since", "refused"), [("2h", 8), ("4h", 15), ("1w4d", 16)])
def test_since_says_how_long_ago(call: Call, url: str, since: str, refused: int) -> None:
    ended = call("refusals", "--store", url, "--since", since, "--json")
    assert sum(json.loads(line)["refused"] for line in ended.stdout.splitlines()) == refused


def test_a_time_may_be_iso_8601_and_one_range_is_listed(call: Call, url: str) -> None:
    def iso(ago: float) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(NOW - ago))

    ended = call("refusals", "--store", url, "--since", iso(4 * 3600), "--until", iso(3600), "--json")
    assert [json.loads(line) for line in ended.stdout.splitlines()] == [
        {
            "minute": iso(3 * 3600).replace("+00:00", ".000Z"),
            "answer": 404,
            "reason": "wrong path",
            "refused": 7,
            "replica": "one",
        }
    ]


def test_a_time_is_written_as_for_other_commands(call: Call, url: str) -> None:
    clock = time.strftime("%H:%M", time.localtime(NOW))
    ended = call("refusals", "--store", url, "--since", clock, "--json")
    assert sum(json.loads(line)["refused"] for line in ended.stdout.splitlines()) == 8
    nothing = call("refusals", "--store", url, "--since", "1h", "--until", "2h")
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert "nothing lies between them" in nothing.stderr


def test_limit_keeps_the_newest(call: Call, url: str) -> None:
    assert "404" not in call("refusals", "--store", url, "--limit", "1").stdout


def test_what_a_newer_program_counts_and_a_closed_connection_are_shown(call: Call, url: str) -> None:
    shown = call("refusals", "--store", url, "--since", "11d").stdout
    assert [word for word in rows(shown)[-1][1:4] if word] == ["closed", "what a newer program says", "1"]
    objects = call("refusals", "--store", url, "--since", "11d", "--json").stdout
    assert json.loads(objects.splitlines()[-1])["answer"] is None


@pytest.mark.parametrize("since", ["yesterday", "2 hours", "-1h", "99999999999d", ""])
def test_a_time_that_is_none_is_a_wrong_call_that_says_what_to_write(call: Call, url: str, since: str) -> None:
    ended = call("refusals", "--store", url, "--since", since)
    assert ended.returncode == 2
    assert f"--since {since} is no time: write 22:14" in ended.stderr


def test_a_time_without_refusals_says_so(call: Call, url: str) -> None:
    ended = call("refusals", "--store", url, "--until", "20d", "--since", "30d")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "No delivery was refused in that time.\n")
