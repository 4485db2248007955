"""`simulate` against receivers that are not ours: an Express endpoint on Node.js, and one with FastAPI."""

import json
import sys
from http.client import HTTPConnection
from pathlib import Path

import pytest

from bench.sides import PEER, PEERS, peer_command
from tests.cli.conftest import Call
from tests.support.process import Process
from tests.support.tools import skip_without
from tests.support.whereby import SECRET

LOAD = ("--meetings-per-minute", "1200", "--minutes", "0.02", "--rooms", "3", "--seed", "7")
FAULTS = ("--duplicates", "0.3", "--reorder", "0.3", "--late-ends", "0.3", "--lost-ends", "0.3")
FASTAPI = """
import hashlib, hmac, os, socket, sys

import uvicorn
from fastapi import FastAPI, HTTPException, Request

app = FastAPI()
webhooks = {}


@app.post("/hooks")
async def receive(request: Request) -> str:
    body = await request.body()
    parts = dict(part.split("=") for part in request.headers["whereby-signature"].split(","))
    signed = hmac.new(os.environ["SECRET"].encode(), f"{parts['t']}.".encode() + body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(signed, parts["v1"]):
        raise HTTPException(401)
    webhook = await request.json()
    webhooks[webhook["id"]] = webhooks.get(webhook["id"], 0) + 1
    return "thanks"


@app.get("/counts")
async def counts() -> dict[str, int]:
    return webhooks


listener = socket.create_server(("127.0.0.1", 0))
print(f"http://127.0.0.1:{listener.getsockname()[1]}/", file=sys.stderr, flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="warning")).run([listener])
"""


def port_of(process: Process) -> int:
    return int(process.line("http://127.0.0.1:").strip().strip("/").rpartition(":")[2])


def asked(port: int, path: str) -> bytes:
    connection = HTTPConnection("127.0.0.1", port)
    connection.request("GET", path)
    answer = connection.getresponse().read()
    connection.close()
    return answer


def test_it_works_with_an_express_endpoint(call: Call, tmp_path: Path) -> None:
    skip_without("node", "npm")
    notes = tmp_path / "notes"
    with Process(peer_command(PEERS[PEER], str(notes)), cwd=tmp_path) as peer:
        ended = call("simulate", f"http://127.0.0.1:{port_of(peer)}/", "--secret", SECRET, *LOAD, *FAULTS, "--json")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        peer.popen.terminate()
        assert peer.popen.wait() == 0
    report = json.loads(ended.stdout)
    assert report["answers"] == {"200": report["sent"]}
    assert report["acknowledged"] > 50
    (_, heard) = notes.read_text().split()
    assert 0 < int(heard) < report["sent"]


@pytest.mark.parametrize("forged", [0.0, 0.3])
def test_it_works_with_an_endpoint_in_fastapi(call: Call, tmp_path: Path, forged: float) -> None:
    (tmp_path / "endpoint.py").write_text(FASTAPI)
    with Process([sys.executable, "endpoint.py"], cwd=tmp_path, env={"SECRET": SECRET}) as endpoint:
        port = port_of(endpoint)
        ended = call(
            *("simulate", f"http://127.0.0.1:{port}/hooks", "--secret", SECRET, *LOAD, *FAULTS, "--json"),
            *("--bad-signatures", str(forged)),
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        counts = json.loads(asked(port, "/counts"))
    report = json.loads(ended.stdout)
    assert report["acknowledged"] == len(counts) > 50
    assert report["answers"]["200"] == sum(counts.values())
    assert report["answers"].get("401", 0) == report["sent"] - report["answers"]["200"]
    assert (forged > 0) == ("401" in report["answers"])
