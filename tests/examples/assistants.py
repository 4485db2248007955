"""The test's side of the stand-in assistants: who is in which room, and when they leave."""

import json
import shlex
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

STAND_IN = Path(__file__).with_name("stand_in.py")
WITHIN = 20.0


@dataclass(frozen=True)
class Visit:
    """Describe one assistant that is, or was, in a room."""

    room_url: str
    key: str | None
    knows_secret: bool
    line: socket.socket

    def leave(self, code: int = 0) -> None:
        """Make it leave the room and exit with a code; return once its process has."""
        self.line.sendall(bytes([code]))
        self.ended()

    def ended(self) -> None:
        """Wait for its end."""
        assert self.line.recv(1) == b""


class Assistants:
    """Read the reports of every stand-in that is started with `command`, for a `with` block."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(WITHIN)
        self._lines: list[socket.socket] = []

    @property
    def command(self) -> str:
        """The command line of a stand-in."""
        return shlex.join([sys.executable, "-S", str(STAND_IN), str(self._server.getsockname()[1])])

    def next(self) -> Visit:
        """Wait for the next one that joins a room."""
        line, _ = self._server.accept()
        line.settimeout(WITHIN)
        self._lines.append(line)
        with line.makefile("rb") as reports:
            return Visit(**json.loads(reports.readline()), line=line)

    def __enter__(self) -> "Assistants":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for line in (*self._lines, self._server):
            line.close()
