"""What went wrong on the way, each thing once: one side's failure keeps no other from being measured."""

from collections.abc import Iterator
from contextlib import contextmanager

from bench.load import LoadFailed
from bench.node import PeerFailed
from bench.tools import ToolMissing
from tests.support.postgres import ServerFailed
from whereby_trigger.testing.program import ProgramFailed

FAILURES = (ToolMissing, PeerFailed, ServerFailed, ProgramFailed, LoadFailed, TimeoutError)


class Problems:
    """Gather failures, in words."""

    def __init__(self) -> None:
        self._found: dict[str, None] = {}

    @property
    def all(self) -> list[str]:
        return list(self._found)

    @contextmanager
    def of(self, who: str) -> Iterator[None]:
        """Take whatever fails within a `with` block for a failure of `who`, and go on behind it."""
        try:
            yield
        except FAILURES as error:
            self._found[f"{who}: {in_short(error)}"] = None


def in_short(error: Exception) -> str:
    """Give the first and the last line of an error's text: between them may be a program's whole log."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines) == 1 else f"{lines[0]} {lines[-1]}"
