"""A disk that loses its power: the parts of each file that are sure to survive, strictly by the rules of fsync.

Written data is sure once a later fsync or fdatasync of its file has returned, a new name once an fsync of its folder
has. What came after may survive or not, sector by sector, in any order.
"""

import random
from itertools import pairwise
from pathlib import Path

from reliability.strace import Call

SECTOR = 512
SYNCS = ("fsync", "fdatasync")


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
