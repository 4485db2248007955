"""Row 18: the disk is full, and then it is not; nothing restarts the receiver.

A limit on the size of its files makes every write of the receiver fail, immediately and without any rights; to SQLite
that is SQLITE_IOERR. If this user may mount a small disk in a new namespace, the same is done with a disk that is
really full, SQLITE_FULL; there a write may still fit into space that the file has already.
"""

import asyncio
import contextlib
import os
import resource
import shutil
import subprocess
import time
from pathlib import Path
from typing import Protocol

from reliability.checker import Emission, check, in_words
from reliability.corpus import Item, items, padded
from reliability.load import Load
from reliability.receivers import ReceiverFailed, Receivers
from reliability.row import Figures, Result
from reliability.stores import SqliteStores, viewing
from whereby_trigger.testing.program import until

BALLAST = "ballast"
CHUNKS = (1 << 20, 4096, 1)

REFUSED_WITHIN = 4.8
RECOVERS_WITHIN = 5.0
AT_ONCE = 3
UNTIL_FELT = 300
"""The most webhooks that are sent until a really full disk shows."""

NONE, OK, AWAY = 0, 200, 503


class EmissionPipe:
    """Read the receiver's lines from a named pipe, if its disk takes no writes; the receiver sees it as the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._end = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._text = b""

    def take(self) -> None:
        """Read what has been written, so the pipe never fills."""
        try:
            while chunk := os.read(self._end, 65536):
                self._text += chunk
        except BlockingIOError:
            return

    def close(self) -> list[Emission]:
        """Close the pipe, and return everything that came through it."""
        self.take()
        os.close(self._end)
        return [Emission.read(line) for line in self._text.decode("ascii").splitlines()]


class FullDisk(Protocol):
    """Fill and free the disk under a store."""

    prefix: tuple[str, ...]
    """The command to run the receiver under."""

    body: int
    """Bytes to which a webhook is padded, so the full disk shows soon."""

    def mount(self, pid: int) -> None:
        """Open the disk of a running receiver."""
        ...

    def fill(self, pid: int) -> None: ...

    def free(self, pid: int) -> None: ...

    def keep(self, into: Path) -> None:
        """Copy the store's files to where the harness can open them, after the receiver has ended."""
        ...


class SizeLimit:
    """Limit the receiver's files to 0 bytes: a write fails immediately, as an input/output error. Needs no rights."""

    prefix: tuple[str, ...] = ()
    body = 0

    def mount(self, pid: int) -> None:
        pass

    def fill(self, pid: int) -> None:
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))

    def free(self, pid: int) -> None:
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))

    def keep(self, into: Path) -> None:
        pass


class SmallDisk:
    """Mount a small disk for the receiver in a new namespace, and fill the rest of it with one file."""

    body = 100_000
    SIZE = "256m"

    def __init__(self, folder: Path) -> None:
        mount = f'mount -t tmpfs -o size={self.SIZE},mode=700 none "$0" && exec "$@"'
        self.prefix: tuple[str, ...] = (*("unshare", "-rm", "sh", "-c", mount), str(folder))
        self._folder = folder
        self._disk = -1

    @staticmethod
    def available(folder: Path) -> bool:
        """Return True if this user may mount such a disk here."""
        if shutil.which("unshare") is None:
            return False
        trial = subprocess.run([*SmallDisk(folder).prefix, "true"], capture_output=True, check=False)
        return trial.returncode == 0

    def mount(self, pid: int) -> None:
        # The open folder keeps the disk after the process, and with it the namespace, has ended.
        self._disk = os.open(f"/proc/{pid}/root{self._folder}", os.O_RDONLY | os.O_DIRECTORY)

    def fill(self, pid: int) -> None:
        ballast = os.open(BALLAST, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600, dir_fd=self._disk)
        try:
            for size in CHUNKS:
                with contextlib.suppress(OSError):
                    while True:
                        os.write(ballast, bytes(size))
        finally:
            os.close(ballast)

    def free(self, pid: int) -> None:
        os.unlink(BALLAST, dir_fd=self._disk)

    def keep(self, into: Path) -> None:
        for name in os.listdir(self._disk):
            with open(os.open(name, os.O_RDONLY, dir_fd=self._disk), "rb") as source:
                (into / name).write_bytes(source.read())
        os.close(self._disk)


async def run(folder: Path, stores: SqliteStores, *, doses: int, on_a_small_disk: int = 0) -> Result:
    """Fill and free a receiver's disk `doses` times, by a limit and, if it can be mounted, on a small disk."""
    limited = await _run(folder / "limit", stores, SizeLimit(), doses)
    figures: Figures = {"doses": doses, **limited.figures}
    problems = [f"with a size limit: {problem}" for problem in limited.problems]
    disk = folder / "disk"
    disk.mkdir()
    if on_a_small_disk and not SmallDisk.available(disk):
        figures["doses on a small disk"] = "none: mounting one needs unshare and user namespaces"
    elif on_a_small_disk:
        small = await _run(folder / "small", stores, SmallDisk(disk), on_a_small_disk, disk)
        figures["doses on a small disk"] = on_a_small_disk
        figures |= {f"{name}, small disk": figure for name, figure in small.figures.items()}
        problems += [f"on a small disk: {problem}" for problem in small.problems]
    return Result(figures, problems)


async def _run(folder: Path, stores: SqliteStores, full_disk: FullDisk, doses: int, disk: Path | None = None) -> Result:
    url = stores.new(folder)
    trial = _Trial(folder, stores.new(disk) if disk else url, full_disk)
    try:
        await trial.start()
        for _ in range(doses):
            await trial.dose()
        return await trial.reckon(url)
    finally:
        await trial.close()


class _Trial:
    def __init__(self, folder: Path, url: str, full_disk: FullDisk) -> None:
        self._folder = folder
        self._full_disk = full_disk
        self._heard = EmissionPipe(folder / "emissions")
        self._load = Load(folder, 1, source=(padded(item, full_disk.body) for item in items(1)))
        self._receivers = Receivers(url, self._heard.path, prefix=full_disk.prefix)
        self._problems: list[str] = []
        self._refused = 0
        self._slowest_refusal = self._slowest_recovery = 0.0

    async def start(self) -> None:
        self._receiver = await self._receivers.start()
        self._load.port = await self._receiver.listening()
        self._full_disk.mount(self._receiver.pid)

    async def dose(self) -> None:
        before = self._load.next()
        self._expect(OK, await self._send(before), "before the disk is full")
        await asyncio.to_thread(self._full_disk.fill, self._receiver.pid)
        refused = await self._meet_full_disk(before)
        await asyncio.to_thread(self._full_disk.free, self._receiver.pid)
        began = time.monotonic()
        if not await until(lambda: self._is_taken(refused[0]), RECOVERS_WITHIN):
            raise ReceiverFailed(f"the receiver does not recover:\n{self._receiver.last_words}")
        self._slowest_recovery = max(self._slowest_recovery, time.monotonic() - began)
        for item in refused[1:]:
            self._expect(OK, await self._send(item), "with the disk free again")
        self._heard.take()

    async def _meet_full_disk(self, before: Item) -> list[Item]:
        """Send until the full disk shows; return what was refused."""
        if self._full_disk.body:
            for _ in range(UNTIL_FELT):
                item = self._load.next()
                if await self._timed(item) == AWAY:
                    return [item]
            raise ReceiverFailed(f"{UNTIL_FELT} webhooks fit into a disk that is full")
        new = [self._load.next() for _ in range(AT_ONCE)]
        answers = await asyncio.gather(*map(self._timed, (*new, before)))
        for answer in answers:
            self._expect(AWAY, answer, "while the disk is full")
        self._expect(AWAY, await self._load.get("/readyz"), "of /readyz meanwhile")
        self._expect(OK, await self._load.get("/livez"), "of /livez meanwhile")
        return new

    async def reckon(self, url: str) -> Result:
        if code := await self._receiver.stop():
            self._problems.append(f"the receiver ended with {code}:\n{self._receiver.last_words}")
        self._full_disk.keep(self._folder)
        async with viewing(url) as view:
            records = await view.records()
        evidence = self._load.evidence(records, self._heard.close(), refused=frozenset())
        figures: Figures = {
            "refused with 503": self._refused,
            "acknowledged": evidence.acknowledged.total(),
            "slowest 503 (s)": round(self._slowest_refusal, 3),
            "slowest recovery (s)": round(self._slowest_recovery, 3),
        }
        return Result(figures, self._problems + in_words(check(evidence)))

    async def close(self) -> None:
        await self._receivers.close()
        self._load.close()

    async def _send(self, item: Item) -> int:
        return await self._load.deliver(item, retries=0)

    async def _is_taken(self, item: Item) -> bool:
        return await self._send(item) == OK

    async def _timed(self, item: Item) -> int:
        began = time.monotonic()
        answer = await self._send(item)
        if answer == AWAY:
            self._refused += 1
            self._slowest_refusal = max(self._slowest_refusal, time.monotonic() - began)
        if time.monotonic() - began > REFUSED_WITHIN:
            self._problems.append(f"an answer took {time.monotonic() - began:.1f} s")
        return answer

    def _expect(self, expected: int, answer: int, when: str) -> None:
        if answer != expected:
            self._problems.append(f"an answer {when} was {answer}, not {expected}")
