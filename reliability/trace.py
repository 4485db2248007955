"""A program's system calls on files and sockets, recorded by strace; and what of its files survives a loss of power.

What is sure to survive is told strictly by the rules of fsync: written data once a later fsync or fdatasync of its file
has returned, a new name once an fsync of its folder has. What came after may survive or not, sector by sector, in any
order.
"""

import random
import re
import shutil
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from msgspec import Struct

from reliability.tools import ToolMissing

TRACED = (
    *("openat", "unlink", "rename", "ftruncate", "pwrite64", "pwritev", "fsync", "fdatasync"),
    *("read", "recvfrom", "recvmsg", "write", "writev", "sendto", "sendmsg"),
)
LONGEST = 8192
"""The most bytes recorded of one call: more than a page of the store or a request of the harness."""

LINE = re.compile(r"(?P<thread>\d+) +(?P<rest>.*)")
WHOLE = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+|\?)")
BEGUN = re.compile(r"(?P<name>\w+)\((?P<arguments>.*) <unfinished \.\.\.>$")
RESUMED = re.compile(r"<\.\.\. (?P<name>\w+) resumed>(?P<arguments>.*)\) += (?P<result>-?\d+|\?)")
STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
DESCRIPTOR = re.compile(r"\d+<((?:\\x[0-9a-f]{2})+)>")
SECTOR = 512
SYNCS = ("fsync", "fdatasync")


class Call(Struct, frozen=True):
    """Describe one system call that succeeded.

    `began` and `ended` are places in the trace: a call was over before another began if its `ended` is less than the
    other's `began`. `path` is the file or socket, `data` the bytes that went over as far as recorded, `number` the
    last number among the arguments: an offset or a length.
    """

    name: str
    path: str
    data: bytes
    number: int
    result: int
    flags: str
    began: int
    ended: int


def tracer(trace: Path) -> tuple[str, ...]:
    """Return the command prefix that records a program's calls; raises ToolMissing."""
    strace = shutil.which("strace")
    if strace is None:
        raise ToolMissing("strace is not installed: this row reads the order of system calls from its trace")
    what = ("-s", str(LONGEST), "-e", f"trace={','.join(TRACED)}")
    return (strace, "-f", "-qq", "-xx", "-y", *what, "-A", "-o", str(trace))


def read_trace(lines: Iterable[str]) -> Iterator[Call]:
    """Read a trace's successful calls, in the order in which they ended.

    strace sees a call begin before the kernel acts on it, and end before the thread goes on: so what one thread does
    because of another's finished call comes after that call's end in the trace.
    """
    begun: dict[str, tuple[int, str]] = {}
    for place, line in enumerate(lines):
        matched = LINE.match(line)
        if matched is None:
            continue
        thread, rest = matched["thread"], matched["rest"]
        if whole := WHOLE.match(rest):
            yield from _call(whole["name"], whole["arguments"], whole["result"], place, place)
        elif resumed := RESUMED.match(rest):
            began, arguments = begun.pop(thread)
            yield from _call(resumed["name"], arguments + resumed["arguments"], resumed["result"], began, place)
        elif started := BEGUN.match(rest):
            begun[thread] = place, started["arguments"]


def _call(name: str, arguments: str, result: str, began: int, ended: int) -> Iterator[Call]:
    if not result.isdigit():
        return
    strings = STRING.findall(arguments)
    descriptor = DESCRIPTOR.match(arguments)
    if descriptor:
        path = _bytes(descriptor[1]).decode(errors="replace")
        data = b"".join(_bytes(text) for text, _ in strings)[: int(result)]
    else:
        path, data = (_bytes(strings[-1][0]).decode(errors="replace") if strings else ""), b""
    numbers = re.findall(r"(?<![\w<\\])\d+(?![\w<])", STRING.sub("", arguments))
    flags = " ".join(re.findall(r"O_\w+", arguments))
    yield Call(name, path, data, int(numbers[-1]) if numbers else 0, int(result), flags, began, ended)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


class File:
    """Hold one file: its sure bytes, and the writes since, each as its offset and bytes; None means truncated there."""

    def __init__(self, created: int) -> None:
        self.sure = bytearray()
        self.since: list[tuple[int, bytes | None, int]] = []
        self.created = created
        self.named = False

    def sync(self, began: int) -> None:
        """Mark as sure what was written before a place in the trace."""
        for place, data, ended in self.since:
            if ended <= began:
                _apply(self.sure, place, data)
        self.since = [write for write in self.since if write[2] > began]


class Disk:
    """Follow the calls on a folder's files whose names begin with `stem`."""

    def __init__(self, folder: Path, stem: str) -> None:
        self._folder = str(folder)
        self._start = str(folder / stem)
        self._files: dict[str, File] = {}

    def follow(self, call: Call) -> None:
        """Apply the next call; calls come in the order in which they ended."""
        if call.path == self._folder and call.name in SYNCS:
            for file in self._files.values():
                file.named = file.named or file.created <= call.began
        elif call.path.startswith(self._start):
            self._follow_file(call)

    def _follow_file(self, call: Call) -> None:
        if call.name == "openat" and "O_CREAT" in call.flags:
            self._files.setdefault(call.path, File(call.ended))
        elif call.name == "unlink":
            self._files.pop(call.path, None)
        elif call.name == "ftruncate":
            self._files[call.path].since.append((call.number, None, call.ended))
        elif call.name == "pwrite64":
            if len(call.data) < call.result:
                raise ValueError(f"the trace holds only the beginning of a write to {call.path}")
            self._files[call.path].since.append((call.number, call.data, call.ended))
        elif call.name in SYNCS:
            self._files[call.path].sync(call.began)

    def cut(self, into: Path, chance: random.Random | None = None) -> None:
        """Write what survives a power cut now; with `chance`, also some sectors of what was not synced."""
        for path, file in self._files.items():
            if not file.named:
                continue
            content = bytearray(file.sure)
            for place, data, _ in file.since if chance else ():
                for offset, sector in _sectors(place, data):
                    if chance is not None and chance.random() < 0.5:
                        _apply(content, offset, sector)
            (into / Path(path).name).write_bytes(content)


def _apply(content: bytearray, place: int, data: bytes | None) -> None:
    if data is None:
        del content[place:]
        content.extend(bytes(max(0, place - len(content))))
        return
    content.extend(bytes(max(0, place + len(data) - len(content))))
    content[place : place + len(data)] = data


def _sectors(place: int, data: bytes | None) -> list[tuple[int, bytes | None]]:
    if data is None:
        return [(place, None)]
    edges = [place, *range((place // SECTOR + 1) * SECTOR, place + len(data), SECTOR), place + len(data)]
    return [(a, data[a - place : b - place]) for a, b in pairwise(edges)]
