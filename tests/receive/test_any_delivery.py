"""The property: for any request, the answer is one of the table, and is true to whether it is stored."""

import asyncio
import itertools
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.asgi import Upload, call
from tests.support.http import SECRET, connected, delivery, signature
from tests.support.receiver import Receiver
from whereby_trigger.errors import DecodeError
from whereby_trigger.store import Query
from whereby_trigger.testing import webhook
from whereby_trigger.webhook import decode, identify

REFUSALS = {400, 401, 404, 405, 408, 413}
WHOLE = b'{"id":"whole","type":"room.client.joined","data":{"roomName":"/visit-1","subdomain":"acme"}}'
MAX_BODY = 2048
numbers = itertools.count()


class Running(logging.Handler):
    """Run a receiver and its event loop for all the examples of a test, and collect logged errors."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[str] = []
        logging.getLogger().addHandler(self)
        self.runner = asyncio.Runner()
        self.receiver = Receiver(folder, max_body=MAX_BODY, **settings)
        self.runner.run(self.receiver.__aenter__())

    def emit(self, record: logging.LogRecord) -> None:
        self.errors.append(logging.Formatter().format(record))

    def end(self) -> None:
        self.runner.run(self.receiver.__aexit__(None, None, None))
        self.runner.close()
        logging.getLogger().removeHandler(self)
        assert self.errors == []

    async def stored(self, id: str) -> bytes | None:
        found = await self.receiver.store.find(Query(ids=(id,)))
        return found[0].body if found else None


MODES: dict[str, dict[str, Any]] = {
    "signed": {"secret": SECRET},
    "this machine only": {"secret": None},
    "unsigned": {"secret": None, "allow_unsigned": True},
}


@pytest.fixture(scope="module", params=MODES)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    one = Running(tmp_path_factory.mktemp("any"), MODES[request.param])
    yield one
    one.end()


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Yield a receiver: no edit of a signed body can turn it into another body that is accepted."""
    one = Running(tmp_path_factory.mktemp("wire"), MODES["signed"])
    yield one
    one.end()


def dumps(value: object, *, ensure_ascii: bool = True) -> bytes:
    """Encode JSON as careless programs do, including lone surrogates."""
    return json.dumps(value, ensure_ascii=ensure_ascii).encode(errors="surrogatepass")


def id_of(body: bytes) -> str:
    try:
        return decode(body).id
    except DecodeError:
        return identify(body)


NAMED = st.text(max_size=8) | st.just("x" * 257) | st.none() | st.integers()
FIELDS = st.dictionaries(st.sampled_from(["roomName", "subdomain", "roleName", "numClients", "x"]), NAMED, max_size=3)
TYPE = st.sampled_from(["room.client.joined", "assistant.requested", "recording.finished", "room.waved"]) | NAMED
WEBHOOK = st.fixed_dictionaries({"id": NAMED, "type": TYPE, "data": FIELDS | NAMED})
BODY = (
    st.binary(max_size=64)
    | st.builds(lambda fields, ascii: dumps(fields, ensure_ascii=ascii), WEBHOOK, st.booleans())
    | st.builds(lambda body, cut: body[:cut], WEBHOOK.map(dumps), st.integers(0, 200))
    | st.integers(MAX_BODY - 8, MAX_BODY + 8).map(lambda size: b"x" * size)
    | st.just(WHOLE)
)
TOKEN = st.text("abcdefghijklmnopqrstuvwxyz-0123456789!#$%&'*+.^_`|~", min_size=1, max_size=20).map(str.encode)
NAME = TOKEN | st.sampled_from(
    [b"host", b"content-length", b"whereby-signature", b"x-forwarded-for", b"forwarded", b"cf-connecting-ip", b"expect"]
)
VALUE = st.binary(max_size=40) | st.sampled_from(
    [b"localhost", b"127.0.0.1:80", b"", b"5", b"+5", b"1_000", b"\xb2", b"9" * 5000, b"t=1,v1=", b"100-continue"]
)
SIGNED = st.sampled_from(["right", "forged", "stale", "none"])


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=BODY,
    cuts=st.lists(st.integers(0, 2048), max_size=3),
    headers=st.lists(st.tuples(NAME, VALUE), max_size=4),
    signed=SIGNED,
    method=st.sampled_from(["POST"] * 8 + ["GET", "HEAD", "PUT", "post", "Ü"]),
    path=st.sampled_from(["/"] * 8 + ["/livez", "/x", "", "/\ud800", "//"]),
)
@example(body=WHOLE, cuts=[], headers=[(b"host", b"localhost")], signed="right", method="POST", path="/")
@example(body=b"\xff", cuts=[], headers=[(b"host", b"localhost")], signed="right", method="POST", path="/")
def test_any_delivery_is_answered_by_the_table_and_stored_where_it_was_answered_200(
    running: Running,
    body: bytes,
    cuts: list[int],
    headers: list[tuple[bytes, bytes]],
    signed: str,
    method: str,
    path: str,
) -> None:
    given_headers = list(headers)
    if signed != "none":
        age, secret = (1000 if signed == "stale" else 0), ("another" if signed == "forged" else SECRET)
        given_headers.append((b"whereby-signature", signature(body, secret=secret, age=age)[1].encode()))
    ends = sorted({min(cut, len(body)) for cut in cuts} | {len(body)})
    chunks = [body[start:end] for start, end in itertools.pairwise([0, *ends])] or [body]

    async def deliver() -> None:
        before = await running.stored(id_of(body))
        answer = await call(running.receiver.edge, Upload(*chunks), given_headers, method=method, path=path)
        assert answer is not None
        assert answer.body == b""
        after = await running.stored(id_of(body))
        if answer.status == 200 and method == "POST":
            assert after == before if before is not None else after == body
        else:
            assert answer.status in REFUSALS or method in ("GET", "HEAD")
            assert after == before

    running.runner.run(deliver())


EDITS = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 3), st.binary(max_size=3)), min_size=1, max_size=3)
ODD_BYTES = EDITS | st.lists(
    st.tuples(
        st.integers(0, 300), st.integers(0, 2), st.sampled_from([b"\r\n", b"\n", b" ", b":", b"\0", b"\xff", b"-1"])
    ),
    min_size=1,
    max_size=2,
)
ANSWER_WITHIN = 0.25


async def send(wire: Running, edits: list[tuple[int, int, bytes]]) -> None:
    id = f"edited {next(numbers)}"
    body = webhook("room.client.joined", id=id).raw
    data = delivery(body)
    for position, old, new in edits:
        position %= len(data) + 1
        data = data[:position] + new + data[position + old :]
    async with connected(wire.receiver.port) as connection:
        await connection.send(data)
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                answer = await connection.answer()
        except TimeoutError:
            return
    if answer is not None and answer.status == 200:
        assert await wire.stored(id) == body, data
    elif answer is not None:
        assert answer.status in REFUSALS, (answer, data)
        assert await wire.stored(id) is None, data


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=st.lists(ODD_BYTES, min_size=10, max_size=10))
def test_any_bytes_on_the_wire_are_answered_by_the_table_or_hung_up_on(
    wire: Running, requests: list[list[tuple[int, int, bytes]]]
) -> None:
    async def send_all() -> None:
        await asyncio.gather(*(send(wire, edits) for edits in requests))

    wire.runner.run(send_all())
