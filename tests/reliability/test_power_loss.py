"""Row 3: power loss, derived from the trace of the system calls; and the model of the disk behind the row."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from reliability.rows import power_loss
from reliability.rows.power_loss import answers_in
from reliability.stores import SqliteStores
from reliability.tools import ToolMissing
from reliability.trace import Call, Disk, read_trace

pytestmark = pytest.mark.anyio

ID = "ab" * 32
FOLDER = Path("/data")


async def test_no_200_leaves_before_its_webhook_is_on_disk(tmp_path: Path, files: SqliteStores) -> None:
    try:
        result = await power_loss.run(tmp_path, files, acknowledged=150, cuts=15)
    except ToolMissing as missing:
        pytest.skip(str(missing))
    assert result.problems == []


def calls(*steps: tuple[str, str, bytes | int]) -> list[Call]:
    """Build calls that do not overlap, in the order of the trace: name, path, and data or place."""
    return [
        Call(
            name,
            path,
            detail if isinstance(detail, bytes) else b"",
            detail if isinstance(detail, int) else 0,
            len(detail) if isinstance(detail, bytes) else 0,
            "O_CREAT",
            place,
            place,
        )
        for place, (name, path, detail) in enumerate(steps)
    ]


REQUEST = ("read", "socket:[1]", b'POST / HTTP/1.1\r\n\r\n{"id":"%b"}' % ID.encode())
WRITE = ("pwrite64", "/data/store.db-wal", b"frame " + ID.encode())
SYNC = ("fdatasync", "/data/store.db-wal", 0)
ANSWER = ("write", "socket:[1]", b"HTTP/1.1 200 OK\r\n\r\n")


@pytest.mark.parametrize(
    ("steps", "synced"),
    [
        ((REQUEST, WRITE, SYNC, ANSWER), True),
        ((REQUEST, WRITE, ANSWER, SYNC), False),
        ((REQUEST, SYNC, WRITE, ANSWER), False),
        ((REQUEST, ANSWER), False),
    ],
)
def test_a_200_counts_as_safe_only_after_the_write_and_then_the_sync(
    steps: tuple[tuple[str, str, bytes | int], ...], synced: bool
) -> None:
    assert [answer.synced for answer in answers_in(calls(*steps), "store.db-wal")] == [synced]


def test_a_sync_that_began_before_the_write_had_ended_proves_nothing() -> None:
    request, write, answer = calls(REQUEST, WRITE, ANSWER)
    overlapping = Call("fdatasync", "/data/store.db-wal", b"", 0, 0, "", 0, 1)
    assert not answers_in([request, write, overlapping, answer], "store.db-wal")[0].synced


def left_after(steps: Iterable[Call], into: Path) -> dict[str, bytes]:
    disk = Disk(FOLDER, "store.db")
    for call in steps:
        disk.follow(call)
    disk.cut(into)
    return {file.name: file.read_bytes() for file in into.iterdir()}


CREATE = ("openat", "/data/store.db", 0)
NAME = ("fsync", "/data", 0)


def test_what_was_written_and_synced_is_left(tmp_path: Path) -> None:
    steps = calls(CREATE, NAME, ("pwrite64", "/data/store.db", b"one"), ("fsync", "/data/store.db", 0))
    assert left_after(steps, tmp_path) == {"store.db": b"one"}


def test_what_was_written_after_the_last_sync_is_gone(tmp_path: Path) -> None:
    written = ("pwrite64", "/data/store.db", b"one")
    overwritten = ("pwrite64", "/data/store.db", b"two")
    steps = calls(CREATE, NAME, written, ("fsync", "/data/store.db", 0), overwritten)
    assert left_after(steps, tmp_path) == {"store.db": b"one"}


def test_a_file_whose_folder_was_not_synced_since_is_gone(tmp_path: Path) -> None:
    steps = calls(NAME, CREATE, ("pwrite64", "/data/store.db", b"one"), ("fsync", "/data/store.db", 0))
    assert left_after(steps, tmp_path) == {}


def test_what_was_cut_off_and_synced_is_gone(tmp_path: Path) -> None:
    steps = calls(
        CREATE,
        NAME,
        ("pwrite64", "/data/store.db", b"one two"),
        ("ftruncate", "/data/store.db", 3),
        ("fsync", "/data/store.db", 0),
    )
    assert left_after(steps, tmp_path) == {"store.db": b"one"}


def hexed(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text.encode())


def test_a_call_that_another_thread_interrupts_is_read_as_one() -> None:
    path = hexed("/data/store.db-wal")
    lines = [
        f'11 pwrite64(5<{path}>, "{hexed("page")}", 4, 4096 <unfinished ...>',
        f'12 write(9<{hexed("socket:[7]")}>, "{hexed("HTTP/1.1 200")}", 12) = 12',
        "11 <... pwrite64 resumed>)           = 4",
        f"11 fdatasync(5<{path}>) = -1 EIO (Input/output error)",
        "11 +++ killed by SIGKILL +++",
    ]
    answer, write = read_trace(lines)
    assert (answer.name, answer.path, answer.data, answer.began) == ("write", "socket:[7]", b"HTTP/1.1 200", 1)
    assert (write.name, write.path, write.data, write.number) == ("pwrite64", "/data/store.db-wal", b"page", 4096)
    assert (write.began, write.ended) == (0, 2)
