"""What the page says about the machine: what matters for the figures, and not whose it is."""

import platform
import socket
import sqlite3

from bench.machine import machine, versions


def test_the_machine_is_described_without_its_name() -> None:
    cores, kernel, files, python = machine()
    assert "cores" in cores
    assert "GiB" in cores
    assert platform.release() in kernel
    assert "synced write" in files
    assert "plain Python" in python
    if len(name := socket.gethostname()) > 3:
        assert name not in f"{cores} {kernel} {files} {python}"


def test_the_versions_of_what_took_part_are_named() -> None:
    named = versions()
    for version in (platform.python_version(), sqlite3.sqlite_version, "PostgreSQL 18", "uvloop", "Express 5"):
        assert version in named
