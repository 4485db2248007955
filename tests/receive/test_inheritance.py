"""What processes that a trigger's program starts inherit from its server: nothing that outlives it."""

import os
import resource
import socket
import sys
from pathlib import Path

import pytest

from tests.support.http import SECRET, delivery
from tests.support.process import Process, whereby_trigger
from tests.support.programs import HUMANS_JOIN, write
from tests.support.until import until
from whereby_trigger.receive import bind
from whereby_trigger.testing import webhook

FORKS = """
import multiprocessing, os
from concurrent.futures import ProcessPoolExecutor
from whereby_trigger import Trigger

trigger = Trigger()
pools = []

@trigger.when("room.client.joined")
def fork():
    pools.append(ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("METHOD")))
    print("worker", pools[-1].submit(os.getpid).result(), flush=True)
    return True

@trigger.on("trigger_event_success")
def nothing(success):
    pass
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_killed_program_leaves_its_port_and_its_connections_to_nobody(tmp_path: Path, method: str) -> None:
    write(tmp_path, FORKS.replace("METHOD", method))
    options = ("--port", "0", "--host", "127.0.0.1", "--secret", SECRET)
    with Process(whereby_trigger("start", *options), cwd=tmp_path) as process:
        port = process.port()
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sender:
            sender.sendall(delivery(webhook("room.client.joined").raw))
            assert sender.recv(1000).startswith(b"HTTP/1.1 200")
            worker = int(process.line("worker").split()[1])
            sender.sendall(delivery(webhook("room.client.left").raw))
            assert sender.recv(1000).startswith(b"HTTP/1.1 200")
            process.popen.kill()
            process.popen.wait()
            os.kill(worker, 0)
            assert sender.recv(1000) == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        bind("127.0.0.1", port).close()


@pytest.mark.skipif(sys.platform != "linux", reason="another process's limits are read on Linux only")
def test_a_program_of_ours_may_open_as_many_files_as_the_system_allows(tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    start = whereby_trigger("start", "--port", "0", "--secret", SECRET)
    with Process(["sh", "-c", 'ulimit -Sn 500; exec "$@"', "sh", *start], cwd=tmp_path) as process:
        port = process.port()
        soft, hard = resource.prlimit(process.popen.pid, resource.RLIMIT_NOFILE)
        assert soft == min(hard, 65_536)
        senders = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(600)]
        for sender in senders:
            sender.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
        assert until(lambda: all(sender.recv(1000).startswith(b"HTTP/1.1 200") for sender in senders))
        for sender in senders:
            sender.close()
