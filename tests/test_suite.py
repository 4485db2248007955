"""What the tests themselves rest on: none of them hangs the run, and they need no more than what is set up for them."""

import asyncio
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.serving import HOST, serving

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = ROOT / "pyproject.toml"
HANGS = """
import threading

def test_that_hangs():
    threading.Event().wait()

def test_that_comes_after_it():
    pass
"""


@pytest.mark.anyio
async def test_a_server_that_a_test_writes_ends_with_its_block_though_a_client_stays() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.set()
        await reader.readexactly(1)

    begun = asyncio.Event()
    async with asyncio.timeout(20):
        async with serving(silent) as port:
            reader, writer = await asyncio.open_connection(HOST, port)
            await begun.wait()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


def test_a_test_that_hangs_fails_with_its_name_and_its_stack_and_the_others_still_run(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(HANGS)
    options = (
        "-n",
        "1",
        "-p",
        "no:cacheprovider",
        "-o",
        "faulthandler_timeout=0.5",
        "-c",
        PYPROJECT,
        "--rootdir",
        ROOT,
    )
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, tmp_path / "test_it.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 1
    assert "crashed while running" in ran.stdout
    assert "test_that_hangs" in ran.stdout
    assert "1 failed, 1 passed" in ran.stdout
    assert f'{tmp_path / "test_it.py"}", line 5 in test_that_hangs' in ran.stdout
    assert tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["tool"]["pytest"]["faulthandler_timeout"] > 0
