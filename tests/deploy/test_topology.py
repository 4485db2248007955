"""The Compose file's two replicas and its balancer, as processes on a real PostgreSQL."""

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.deploy.manifests import APP, COMPOSE, services
from tests.support.postgres import Server
from tests.support.process import Process, clean_environment, whereby_trigger
from tests.support.programs import free_port
from tests.support.stored import stored
from tests.support.until import until
from tests.support.whereby import SECRET, deliver, request
from whereby_trigger.testing import webhook

NAMES = [name for name in services() if name.startswith("replica-")]
ROOMS = 12
LEASE = 4.0
OLDEST_CADDY = (2, 8)


class Topology:
    """Run the replicas as the Compose file defines them, in a folder that holds their credentials and spills."""

    def __init__(self, folder: Path, store: str) -> None:
        self.store = store
        self.replicas: dict[str, Process] = {}
        self.ports: dict[str, int] = {}
        self._folder = folder
        self._stack = ExitStack()
        (folder / "webhook-secret").write_text(SECRET)
        (folder / "store-url").write_text(store)

    def _start(self, name: str) -> Process:
        own = self._folder / name
        own.mkdir()
        settings = {
            **services()[name]["environment"],
            "CREDENTIALS_DIRECTORY": str(self._folder),
            "WHEREBY_TRIGGER_SPILL": f"sqlite:///{own}/spill.db",
            "WHEREBY_TRIGGER_LEASE_TTL": str(LEASE),
        }
        command = whereby_trigger("start", str(APP), "--port", "0", "--host", "127.0.0.1")
        return self._stack.enter_context(Process(command, cwd=own, env=settings))

    def balancer(self, caddy: str) -> str:
        """Start Caddy with the Caddyfile before the replicas, and return its URL once it considers both ready."""
        url = f"http://127.0.0.1:{free_port()}"
        environment = {
            "SITE_ADDRESS": url,
            "REPLICAS": " ".join(f"127.0.0.1:{port}" for port in self.ports.values()),
            "HOME": str(self._folder),
        }
        command = [caddy, "run", "--adapter", "caddyfile", "--config", str(COMPOSE.with_name("Caddyfile"))]
        self._stack.enter_context(Process(command, cwd=self._folder, env=environment)).line(
            "serving initial configuration"
        )
        until(lambda: request("GET", f"{url}/readyz").status == 200)
        return url

    def attended(self, name: str) -> dict[str, int]:
        """Return the rooms that a replica attends, with the attempt."""
        found = re.findall(r"attending (/[\w-]+), attempt (\d+)", self.replicas[name].output)
        return {room: int(attempt) for room, attempt in found}

    def __enter__(self) -> "Topology":
        with ExitStack() as started:
            self._stack = started
            self.replicas = {name: self._start(name) for name in NAMES}
            self.ports = {name: replica.port() for name, replica in self.replicas.items()}
            self._stack = started.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


@pytest.fixture
def topology(tmp_path: Path, postgres: Server) -> Iterator[Topology]:
    with Topology(tmp_path, postgres.create_database()) as running:
        yield running


def test_two_replicas_attend_each_room_once_and_one_goes_on_with_all_when_the_other_is_killed(
    topology: Topology,
) -> None:
    first, second = NAMES
    joined = [webhook("room.client.joined", room=f"/visit-{number}") for number in range(ROOMS)]
    for sent in joined:
        for port in topology.ports.values():
            assert deliver(f"http://127.0.0.1:{port}/", sent).status == 200
    rooms = {f"/visit-{number}" for number in range(ROOMS)}
    until(lambda: topology.attended(first).keys() | topology.attended(second).keys() == rooms)
    assert topology.attended(first).keys() & topology.attended(second).keys() == set()
    left_behind = topology.attended(first).keys()
    topology.replicas[first].kill()
    until(lambda: topology.attended(second).keys() == rooms, within=10 * LEASE)
    assert {topology.attended(second)[room] for room in left_behind} <= {2}
    assert [record.state for record in stored(topology.store)] == ["fired"] * ROOMS
    assert {record.deliveries for record in stored(topology.store)} == {2}


def caddy() -> str:
    """Return a Caddy that supports what the Caddyfile uses; skips if there is none."""
    program = shutil.which("caddy")
    if program is None:
        pytest.skip("Caddy is missing: install version 2.8 or later, and name it caddy on the PATH")
    version = subprocess.run([program, "version"], capture_output=True, text=True, check=True, env=clean_environment())
    numbers = tuple(map(int, re.findall(r"\d+", version.stdout)[:2]))
    if numbers < OLDEST_CADDY:
        pytest.skip(f"Caddy {version.stdout.strip()} cannot send a delivery again: install 2.8 or later")
    return program


def decided(topology: Topology) -> set[str]:
    return {record.id for record in stored(topology.store) if record.state != "pending"}


def test_behind_the_balancer_no_delivery_is_refused_while_a_replica_stops(topology: Topology) -> None:
    url = topology.balancer(caddy())
    stopped = topology.replicas[NAMES[0]]
    # None starts an assistant: without one there is nothing to drain, and the port closes immediately.
    sent = [webhook("room.client.left") for _ in range(60)]
    for number, one in enumerate(sent):
        if number == 20:
            stopped.popen.send_signal(signal.SIGTERM)
        assert deliver(f"{url}/", one).status == 200
    assert stopped.wait() == 0
    until(lambda: decided(topology) == {one.id for one in sent})


def test_behind_the_balancer_what_a_replica_took_and_did_not_answer_goes_to_the_other(
    topology: Topology,
) -> None:
    url = topology.balancer(caddy())
    sent = [webhook("room.client.joined", room=f"/visit-{number}") for number in range(8)]
    topology.replicas[NAMES[0]].popen.send_signal(signal.SIGSTOP)
    with ThreadPoolExecutor(len(sent)) as threads:
        answers = [threads.submit(deliver, f"{url}/", one) for one in sent]
        until(lambda: sum(answer.done() for answer in answers) == len(sent) // 2)
        topology.replicas[NAMES[0]].kill()
        assert {answer.result().status for answer in answers} == {200}
    until(lambda: decided(topology) == {one.id for one in sent}, within=10 * LEASE)
