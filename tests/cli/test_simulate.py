"""`simulate`: meetings sent to any receiver as Whereby sends them, and a correct report."""

import asyncio
import json
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.conftest import Call
from tests.support.process import Process, clean_environment, whereby_trigger
from tests.support.programs import HUMANS_JOIN, write
from tests.support.stored import stored
from tests.support.whereby import SECRET
from whereby_trigger.testing.sender import Address, Sender
from whereby_trigger.testing.simulator import Faults, Load, Planned, ScriptError, plan, play, read_script, send_all
from whereby_trigger.webhook import verify

BEGIN = datetime(2026, 11, 28, 22, 14, tzinfo=UTC)
EVERYTHING = ("--duplicates", "0.3", "--reorder", "0.3", "--late-ends", "0.3", "--lost-ends", "0.3")
QUICK = ("--meetings-per-minute", "1200", "--minutes", "0.02", "--rooms", "3", "--seed", "7")
"""Meetings that last a fraction of a second, since their rooms are needed again immediately."""


class Endpoint:
    """Answer each request by a function of its number and body: a receiver that is not ours."""

    def __init__(self, status: Callable[[int, bytes], int]) -> None:
        self.bodies: list[bytes] = []
        self.signatures: list[str] = []
        self.ports: list[int] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                endpoint.bodies.append(body)
                endpoint.signatures.append(self.headers["Whereby-Signature"])
                endpoint.ports.append(self.client_address[1])
                self.send_response(status(len(endpoint.bodies), body))
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            # More than come at once: a connection that finds no place is tried again after a second.
            request_queue_size = 128

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))

    def __enter__(self) -> "Endpoint":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks?of=whereby"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    folder = tmp_path_factory.mktemp("server")
    write(folder, HUMANS_JOIN)
    with Process(
        whereby_trigger("start", "--port", "0", "--host", "127.0.0.1", "--secret", SECRET), cwd=folder
    ) as process:
        yield f"http://127.0.0.1:{process.port()}/", f"sqlite:///{folder}/whereby-trigger.db"


def test_the_report_and_the_store_of_a_trigger_say_the_same(call: Call, server: tuple[str, str]) -> None:
    url, store = server
    ended = call(
        *("simulate", url, "--secret", SECRET, *QUICK, *EVERYTHING, "--bad-signatures", "0.2", "--json"),
        *("--store", store),
    )
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    records = stored(store)
    assert report["missing"] == []
    assert report["acknowledged"] == len(records) > 50
    assert report["answers"]["200"] == sum(record.deliveries for record in records)
    assert report["answers"]["401"] > 0
    assert report["sent"] == report["requests"] == sum(report["answers"].values())
    assert (report["wrong"], report["given_up"], report["retried"]) == (0, 0, 0)


def test_what_was_acknowledged_and_is_not_stored_is_named(call: Call, server: tuple[str, str]) -> None:
    with Endpoint(lambda *_: 200) as endpoint:
        ended = call("simulate", endpoint.url, "--secret", SECRET, *QUICK, "--store", server[1])
    assert ended.returncode == 1
    assert " are missing: " in ended.stdout


def test_it_works_with_a_receiver_that_is_not_ours_and_signs_as_whereby_does(call: Call) -> None:
    with Endpoint(lambda *_: 201) as endpoint:
        ended = call("simulate", endpoint.url, "--secret", SECRET, *QUICK)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    now = datetime.now(UTC).timestamp()
    for body, signature in zip(endpoint.bodies, endpoint.signatures, strict=True):
        verify(signature.encode(), body, (SECRET,), now, 60.0)
    assert len(set(endpoint.ports)) < len(endpoint.bodies), "connections are not used again"


def test_a_5xx_is_sent_twice_more_and_then_given_up(call: Call) -> None:
    with Endpoint(lambda *_: 503) as endpoint:
        ended = call(
            "simulate", endpoint.url, "--secret", SECRET, "--script", "-", "--json", input='{"at": 0, "do": "start"}'
        )
    report = json.loads(ended.stdout)
    assert (ended.returncode, report["sent"], report["requests"], report["given_up"]) == (1, 1, 3, 1)
    assert len(set(endpoint.bodies)) == 1


def test_a_4xx_is_not_sent_again(call: Call) -> None:
    with Endpoint(lambda *_: 404) as endpoint:
        ended = call("simulate", endpoint.url, "--secret", SECRET, "--script", "-", input='{"at": 0, "do": "start"}')
    assert (ended.returncode, len(endpoint.bodies)) == (1, 1)
    assert "1: a 4xx for a real webhook" in ended.stdout


def test_a_redirect_is_a_wrong_answer_since_nothing_was_acknowledged(call: Call) -> None:
    with Endpoint(lambda *_: 307) as endpoint:
        ended = call("simulate", endpoint.url, "--secret", SECRET, "--script", "-", input='{"at": 0, "do": "start"}')
    assert (ended.returncode, len(endpoint.bodies)) == (1, 1)
    assert "a redirect" in ended.stdout


def test_the_report_is_printed_even_if_the_store_cannot_be_read(call: Call, tmp_path: Path) -> None:
    with Endpoint(lambda *_: 200) as endpoint:
        ended = call(
            *("simulate", endpoint.url, "--secret", SECRET, "--store", f"sqlite:///{tmp_path}/nowhere.db", "--json"),
            *("--script", "-"),
            input='{"at": 0, "do": "start"}',
        )
    assert (ended.returncode, json.loads(ended.stdout)["acknowledged"]) == (2, 1)
    assert "nowhere.db" in ended.stderr


def simulate_a_crowd(limit: str, answer: Callable[[int, bytes], int]) -> "subprocess.CompletedProcess[str]":
    """Send 60 webhooks at once, with a limit of open files."""
    crowd = "".join(json.dumps({"at": 0, "do": "join", "room": f"/room-{number}"}) + "\n" for number in range(60))
    with Endpoint(answer) as endpoint:
        command = whereby_trigger("simulate", endpoint.url, "--secret", SECRET, "--script", "-")
        return subprocess.run(
            ["sh", "-c", f'{limit}; exec "$@"', "sh", *command],
            input=crowd,
            capture_output=True,
            text=True,
            env=clean_environment(),
            timeout=60,
        )


@pytest.fixture
def slow() -> Callable[[int, bytes], int]:
    """Answer when there are 60 requests, or after 4 s: a sender that is out of files brings fewer."""
    enough = threading.Event()

    def answer(number: int, body: bytes) -> int:
        if number >= 60:
            enough.set()
        enough.wait(4)
        return 200

    return answer


def test_what_was_not_sent_for_want_of_files_is_not_blamed_on_the_receiver(slow: Callable[[int, bytes], int]) -> None:
    ended = simulate_a_crowd("ulimit -n 40", slow)
    assert ended.returncode == 1
    assert "out of files" in ended.stderr


def test_a_simulation_may_open_as_many_files_as_the_system_allows(slow: Callable[[int, bytes], int]) -> None:
    ended = simulate_a_crowd("ulimit -Sn 40", slow)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_receiver_that_lets_forged_webhooks_in_is_told_so(call: Call) -> None:
    with Endpoint(lambda *_: 200) as endpoint:
        ended = call("simulate", endpoint.url, "--secret", SECRET, *QUICK, "--bad-signatures", "0.5")
    assert ended.returncode == 1
    assert "a forged one that was not refused" in ended.stdout


@pytest.mark.anyio
async def test_a_retry_goes_to_another_replica() -> None:
    with Endpoint(lambda *_: 503) as first, Endpoint(lambda *_: 200) as second:
        hosts = ("127.0.0.1", first.port), ("127.0.0.1", second.port)
        sender = Sender(Address(hosts, "replicas", "/"), SECRET)
        planned = Planned(0, play_one({"at": 0, "do": "start"}))
        report = await send_all([planned], sender, asyncio.Event())
        sender.close()
    assert (len(first.bodies), len(second.bodies)) == (1, 1)
    assert (report.retried, report.given_up, report.acknowledged) == (1, 0, {planned.webhook.id})


def test_a_host_with_an_address_at_which_nobody_listens_gets_every_webhook(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As localhost, which is ::1 as well, of a receiver that listens on 127.0.0.1 alone."""
    resolve = socket.getaddrinfo

    def both(host: str, port: int, **options: Any) -> list[Any]:
        if host != "two.example":
            return resolve(host, port, **options)
        found = resolve("127.0.0.1", port, **options)
        return [(*found[0][:4], ("127.0.0.2", port)), *found]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    with Endpoint(lambda *_: 200) as endpoint:
        ended = call("simulate", f"http://two.example:{endpoint.port}/", "--secret", SECRET, *QUICK, "--json")
    report = json.loads(ended.stdout)
    assert (ended.returncode, report["given_up"], report["acknowledged"]) == (0, 0, len(set(endpoint.bodies)))


def test_a_504_is_an_answer_unlike_none_in_time(call: Call) -> None:
    one = '{"at": 0, "do": "start"}'
    with Endpoint(lambda *_: 504) as endpoint:
        ended = call("simulate", endpoint.url, "--secret", SECRET, "--script", "-", input=one)
        as_json = call("simulate", endpoint.url, "--secret", SECRET, "--script", "-", "--json", input=one)
    assert " 3 x 504" in ended.stdout
    assert "none within" not in ended.stdout
    report = json.loads(as_json.stdout)
    assert (report["answers"], report["unanswered"], report["ms"]["max"] > 0) == ({"504": 3}, {}, True)


def test_a_connection_that_fails_is_reported_with_the_reason(call: Call) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closes:
        threading.Thread(target=lambda: closes.accept()[0].close(), daemon=True).start()
        url = f"http://127.0.0.1:{closes.getsockname()[1]}/"
        ended = call("simulate", url, "--secret", SECRET, "--script", "-", input='{"at": 0, "do": "start"}')
    assert "1 x the connection was closed before the answer" in ended.stdout


def test_nothing_listens_there(call: Call) -> None:
    with Endpoint(lambda *_: 200) as endpoint:
        url = endpoint.url
    ended = call("simulate", url, "--secret", SECRET, *QUICK)
    assert ended.returncode == 1
    assert " x no answer" in ended.stdout


@given(
    st.builds(Load, st.floats(1, 60), st.floats(0.01, 0.3), st.integers(1, 5), st.integers(1, 6)),
    st.builds(Faults, *[st.floats(0, 1)] * 5),
    st.integers(0, 2**32),
)
def test_a_plan_is_the_same_for_a_seed_in_order_and_its_counts_fit(load: Load, faults: Faults, seed: int) -> None:
    planned = list(plan(load, faults, begin=BEGIN, seed=seed))
    assert planned == list(plan(load, faults, begin=BEGIN, seed=seed))
    assert [one.at for one in planned] == sorted(one.at for one in planned)
    real = {one.webhook.id: one.webhook for one in planned if not one.forged}
    types = Counter(webhook.type for webhook in real.values())
    assert types["room.client.joined"] == types["room.client.left"]
    assert types["room.session.ended"] <= types["room.session.started"]
    if not faults.lost_ends:
        assert (
            types["room.session.ended"]
            == types["room.session.started"]
            == max(1, round(load.meetings_per_minute * load.minutes))
        )
    for webhook in real.values():
        assert webhook.created_at is not None
        assert BEGIN <= webhook.created_at <= BEGIN + timedelta(minutes=load.minutes + 1)


def test_a_session_starts_when_two_are_in_the_room() -> None:
    sessions: dict[str | None, list[Any]] = {}
    for one in plan(Load(60, 1, 20, 5), Faults(), begin=BEGIN, seed=1):
        data: Any = one.webhook.data
        sessions.setdefault(data.room_session_id, []).append(one.webhook)
    checked = 0
    for webhooks in sessions.values():
        types = [webhook.type for webhook in webhooks]
        if types.count("room.client.joined") > 1:
            before = webhooks[: types.index("room.session.started")]
            assert [webhook.data.num_clients for webhook in before] == [1, 2]
            checked += 1
    assert checked > 10


def play_one(step: dict[str, Any]) -> Any:
    (planned,) = play(read_script([json.dumps(step)]), begin=BEGIN)
    return planned.webhook


def test_a_script_says_what_happens_and_how_it_is_delivered() -> None:
    script = """
        # Two people, and the end comes late.
        {"at": 0, "do": "join", "role": "host", "name": "Kim", "times": 2}
        {"at": 1, "do": "join", "data": {"externalId": "patient-7"}, "delay": 30}
        {"at": 9, "do": "leave", "name": "Kim", "lost": true}
        {"at": 10, "do": "end", "delay": 5}
        {"at": 11, "do": "join"}
        {"at": 12, "do": "request_assistant", "forged": true, "room": "/other"}
    """
    planned = list(play(read_script(script.splitlines()), begin=BEGIN))
    assert [(one.at, one.webhook.type, one.forged) for one in planned] == [
        (0, "room.client.joined", False),
        (0, "room.client.joined", False),
        (11, "room.client.joined", False),
        (12, "assistant.requested", True),
        (15, "room.session.ended", False),
        (31, "room.client.joined", False),
    ]
    first, _, next_meeting, _, end, late = (json.loads(one.webhook.raw)["data"] for one in planned)
    assert late["externalId"] == "patient-7"
    assert end["roomSessionId"] == first["roomSessionId"] != next_meeting["roomSessionId"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1 is not a step"),
        ('{"at": 0, "do": "dance"}', "line 1 is not a step.*dance"),
        ('{"at": 0, "do": "join", "rol": "host"}', "line 1 is not a step.*rol"),
        ('{"at": 0, "do": "leave"}', "step 1, leave at 0 s, cannot happen: nobody"),
        ('{"at": 3e11, "do": "join"}', "step 1, join at 3e[+]11 s, cannot happen: date value"),
        ('{"at": 1e300, "do": "join"}', "step 1, join at 1e[+]300 s, cannot happen"),
        ('{"at": 0, "do": "end", "data": {"a": 1}}', "only a join and a knock take data"),
    ],
)
def test_a_wrong_line_of_a_script_is_named(line: str, message: str) -> None:
    with pytest.raises(ScriptError, match=message):
        list(play(read_script([line]), begin=BEGIN))


def test_a_wrong_script_is_a_wrong_call(call: Call, tmp_path: Path) -> None:
    (tmp_path / "meeting.jsonl").write_text('{"at": 0}\n')
    ended = call("simulate", "http://127.0.0.1:9/", "--secret", SECRET, "--script", "meeting.jsonl")
    assert ended.returncode == 2
    assert "line 1 is not a step" in ended.stderr


def test_a_host_that_does_not_exist_is_named(call: Call) -> None:
    ended = call("simulate", "http://nowhere.invalid/", "--secret", SECRET)
    assert ended.returncode == 1
    assert "cannot find the host of http://nowhere.invalid/" in ended.stderr


def test_a_simulation_without_an_end_is_a_wrong_call(call: Call) -> None:
    ended = call("simulate", "http://127.0.0.1:9/", "--minutes", "inf")
    assert (ended.returncode, "is not in the range" in ended.stderr) == (2, True)
