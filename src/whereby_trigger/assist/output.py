"""An assistant's output, as lines that a log or a store can take. Pure."""

from typing import Final

from whereby_trigger.texts import fit_for_stores

LONGEST: Final = 8 * 1024
"""Bytes of a line that are kept."""


class Lines:
    """Split a stream of bytes into lines, none of them held longer than can be shown."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take what came next, and give the lines that it ended."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[: LONGEST + 1]
        return lines

    def end(self) -> list[bytes]:
        """Give what stands after the last line's end, if anything does."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


def readable(line: bytes) -> str:
    """Make text of a line: UTF-8 where it is, at most LONGEST bytes of it, and no NUL, which some stores refuse."""
    cut = line[:LONGEST] + "…".encode() if len(line) > LONGEST else line
    return fit_for_stores(cut.decode("utf-8", errors="replace").rstrip("\r"))
