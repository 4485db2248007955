"""The room at the other end of the stub of Whereby's SDK: the test reads what an assistant does there, and answers."""

import json
import shutil
import socket
from pathlib import Path
from types import TracebackType
from typing import Any

STUB = Path(__file__).with_name("sdk_stub.mjs")
MODULE = "@whereby.com/assistant-sdk"
WITHIN = 20.0


def install_stub(folder: Path) -> None:
    """Write the module that the Node.js programs in a folder import."""
    module = folder / "node_modules" / MODULE
    module.mkdir(parents=True)
    shutil.copy(STUB, module / "index.mjs")
    (module / "polyfills.mjs").write_text("globalThis.window = { ...globalThis };\n")
    exports = {".": "./index.mjs", "./polyfills": "./polyfills.mjs"}
    (module / "package.json").write_text(json.dumps({"name": MODULE, "version": "0.0.0", "exports": exports}))


class Visitor:
    """Hold the connection to one assistant."""

    def __init__(self, line: socket.socket) -> None:
        line.settimeout(WITHIN)
        self._line = line
        self._told = line.makefile("r", encoding="utf-8")

    def does(self) -> dict[str, Any]:
        """Wait for its next action, and return it."""
        told = self._told.readline()
        assert told, "the assistant is gone"
        did: dict[str, Any] = json.loads(told)
        return did

    def answer(self, **what: Any) -> None:
        self._line.sendall(json.dumps(what).encode() + b"\n")

    def gone(self) -> None:
        """Wait until its process has closed the connection."""
        assert self._told.readline() == ""

    def close(self) -> None:
        self._told.close()
        self._line.close()


class StubRoom:
    """Accept the assistants that connect by `environment`, for a `with` block."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(WITHIN)
        self._visitors: list[Visitor] = []

    @property
    def environment(self) -> dict[str, str]:
        return {"STUB_PORT": str(self._server.getsockname()[1]), "ASSISTANT_KEY": "the key"}

    def next(self) -> Visitor:
        """Wait for the next assistant that joins."""
        visitor = Visitor(self._server.accept()[0])
        self._visitors.append(visitor)
        return visitor

    def __enter__(self) -> "StubRoom":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for visitor in self._visitors:
            visitor.close()
        self._server.close()
