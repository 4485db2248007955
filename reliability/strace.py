"""A program's system calls on files and sockets, recorded by strace and read back in order."""

import re
import shutil
from collections.abc import Iterable, Iterator
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


class StraceMissing(ToolMissing):
    """strace is not installed."""


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
    """Return the command prefix that records a program's calls; raises StraceMissing."""
    strace = shutil.which("strace")
    if strace is None:
        raise StraceMissing("strace is not installed: this row reads the order of system calls from its trace")
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
