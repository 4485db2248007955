"""The ledger: the ids that were answered 200, on disk before the sender goes on to rely on them."""

import os
import queue
import threading
from collections import Counter
from pathlib import Path


class Ledger:
    """Append ids to a file in a thread of its own, and sync it after each batch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._ids: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ledger")
        self._thread.start()

    def add(self, id: str) -> None:
        """Note that an id was answered 200."""
        self._ids.put(id)

    def close(self) -> Counter[str]:
        """Wait until everything is on disk; return how often each id was answered 200, as the file has it."""
        if self._thread.is_alive():
            self._ids.put(None)
            self._thread.join()
            os.close(self._file)
        return Counter(self.path.read_text(encoding="ascii").split())

    def _run(self) -> None:
        ended = False
        while not ended:
            batch = [self._ids.get()]
            while not self._ids.empty():
                batch.append(self._ids.get())
            ended = batch[-1] is None
            os.write(self._file, "".join(f"{id}\n" for id in batch if id is not None).encode())
            os.fsync(self._file)
