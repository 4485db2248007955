"""Ways to fill and free the disk of a running receiver."""

import contextlib
import os
import resource
import shutil
import subprocess
from pathlib import Path
from typing import Protocol

BALLAST = "ballast"
CHUNKS = (1 << 20, 4096, 1)


class FullDisk(Protocol):
    """Fill and free the disk under a store."""

    prefix: tuple[str, ...]
    """The command to run the receiver under."""

    body: int
    """How many bytes a webhook is padded to, so that the disk is felt soon."""

    def mount(self, pid: int) -> None:
        """Get hold of the disk of a running receiver."""
        ...

    def fill(self, pid: int) -> None: ...

    def free(self, pid: int) -> None: ...

    def keep(self, into: Path) -> None:
        """Put the store's files where the harness can open them, once the receiver has ended."""
        ...


class SizeLimit:
    """Let no file of the receiver take a byte: a write fails at once, as an input/output error. Needs no rights."""

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
    """Give the receiver a small disk in a namespace of its own, and fill the rest of it with one file."""

    body = 100_000
    SIZE = "256m"

    def __init__(self, folder: Path) -> None:
        mount = f'mount -t tmpfs -o size={self.SIZE},mode=700 none "$0" && exec "$@"'
        self.prefix: tuple[str, ...] = (*("unshare", "-rm", "sh", "-c", mount), str(folder))
        self._folder = folder
        self._disk = -1

    @staticmethod
    def available(folder: Path) -> bool:
        """Tell whether this user may have such a disk here."""
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
