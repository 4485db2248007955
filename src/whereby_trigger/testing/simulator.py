"""Simulate Whereby: meetings at a rate, sent as Whereby sends them, with the faults that deliveries have.

`plan` is pure: the same seed makes the same meetings. `Sender` posts as Whereby's documentation says: an answer within
5 seconds, 2 retries after a 5xx or no answer in time, none after a 4xx. What Whereby does if the connection is refused
is not documented; it is not retried here. Source: Whereby docs, Failed delivery.
"""

import asyncio
import heapq
import random
import ssl
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import count
from typing import Final

import h11
from msgspec import Struct

from whereby_trigger.testing.meeting import Meeting
from whereby_trigger.webhook import SIGNATURE_HEADER, Webhook, sign

ANSWER_WITHIN: Final = 5.0
"""Seconds that Whereby waits for an answer. Source: Whereby docs, Failed delivery."""

RETRIES: Final = 2
"""How often Whereby sends a delivery again. Source: Whereby docs, Failed delivery."""

BACKOFF: Final = 0.1
"""Seconds before the first retry; the second waits twice as long. Whereby says only that it is short."""

IDLE: Final = 2.0
"""Seconds for which a connection is kept for another request; servers close idle ones later than that."""

LONGEST: Final = 60.0
"""Seconds for which a meeting lasts, or less if its room is needed again before."""

REUSED_AFTER: Final = 0.9
"""The share of the time until a room's next meeting for which its meeting lasts."""

DELAY, LATE = 0.1, 1.5
"""How late a webhook is that others overtake, and an end that is late, at most, in lengths of a meeting.

The next meeting in the room may have begun before a late end comes.
"""

NO_ANSWER, TIMED_OUT = 0, 504
"""What counts as the status of a delivery whose connection failed, and of one that was not answered in time."""


class Load(Struct, frozen=True):
    """Describe meetings to simulate: how many begin each minute, for how many minutes, in how many rooms.

    At most `people` people join each meeting. A meeting lasts a minute, or less if its room is needed again before.
    """

    meetings_per_minute: float = 10.0
    minutes: float = 1.0
    rooms: int = 20
    people: int = 3
    subdomain: str = "acme"


class Faults(Struct, frozen=True):
    """Hold the shares of webhooks, from 0 to 1, that something happens to.

    `duplicates` are sent twice; `reorder` are sent so late that others overtake them; `late_ends` are ends of sessions
    that may come after the room's next meeting has begun; `lost_ends` are never sent. `bad_signatures` is the number of
    forged webhooks for each real one.
    """

    duplicates: float = 0.0
    reorder: float = 0.0
    late_ends: float = 0.0
    lost_ends: float = 0.0
    bad_signatures: float = 0.0


class Planned(Struct, frozen=True):
    """Describe one delivery: when it is sent, in seconds after the beginning, and what; a forged one must get 401."""

    at: float
    webhook: Webhook
    forged: bool = False


def plan(load: Load, faults: Faults, *, begin: datetime, seed: int) -> Iterator[Planned]:
    """Yield the deliveries of simulated meetings, in the order in which they are sent; the same ones for a seed."""
    chance = random.Random(seed)  # noqa: S311 - it makes up meetings
    order = count()
    waiting: list[tuple[float, int, Planned]] = []
    for number in range(max(1, round(load.meetings_per_minute * load.minutes))):
        starts = number * 60 / load.meetings_per_minute
        while waiting and waiting[0][0] <= starts:
            yield heapq.heappop(waiting)[2]
        for planned in _meeting(load, faults, number, starts, begin, chance):
            heapq.heappush(waiting, (planned.at, next(order), planned))
    while waiting:
        yield heapq.heappop(waiting)[2]


def _meeting(
    load: Load, faults: Faults, number: int, starts: float, begin: datetime, chance: random.Random
) -> Iterator[Planned]:
    lasts = min(LONGEST, REUSED_AFTER * load.rooms * 60 / load.meetings_per_minute)
    meeting = Meeting(
        f"/room-{number % load.rooms + 1}",
        subdomain=load.subdomain,
        begin=begin + timedelta(seconds=starts),
        make_id=lambda: chance.randbytes(16).hex(),
    )
    for at, webhook in _happenings(meeting, lasts, chance.randint(1, load.people), chance):
        is_end = webhook.type == "room.session.ended"
        if is_end and chance.random() < faults.lost_ends:
            continue
        sent_at = starts + at
        if chance.random() < faults.reorder:
            sent_at += chance.uniform(0, DELAY * lasts)
        if is_end and chance.random() < faults.late_ends:
            sent_at += chance.uniform(0, LATE * lasts)
        yield Planned(sent_at, webhook)
        if chance.random() < faults.duplicates:
            yield Planned(sent_at + chance.uniform(0, DELAY * lasts), webhook)
        if chance.random() < faults.bad_signatures:
            forged = Meeting(meeting.room, make_id=lambda: chance.randbytes(16).hex(), begin=meeting.begin)
            yield Planned(sent_at, forged.request_assistant(at=at), forged=True)


def _happenings(meeting: Meeting, lasts: float, people: int, chance: random.Random) -> Iterator[tuple[float, Webhook]]:
    """Yield what happens in a meeting, in order, each with its second: everybody joins, then everybody leaves."""
    joins = sorted(chance.uniform(0, 0.4 * lasts) for _ in range(people - 1))
    yield 0.0, meeting.join("host", at=0)
    yield 0.01, meeting.start(at=0.01)
    for at in joins:
        yield at, meeting.join(at=at)
    for at in sorted(chance.uniform(0.5 * lasts, 0.98 * lasts) for _ in range(people)):
        yield at, meeting.leave(at=at)
    yield 0.99 * lasts, meeting.end(at=0.99 * lasts)


class Response(Struct, frozen=True):
    """Describe the answer to one request: its status, and how many seconds it took.

    The status is 504 if there was none in time, and 0 if the connection failed.
    """

    status: int
    seconds: float

    @property
    def is_retried(self) -> bool:
        """True if Whereby would send the delivery again."""
        return self.status >= 500


class Address(Struct, frozen=True):
    """Describe where to post to: one or more hosts that serve the same, tried in turn, and the request's target."""

    hosts: tuple[tuple[str, int], ...]
    name: str
    target: str
    tls: bool = False


class SimulationReport:
    """Count what was sent and what came of it.

    `sent` counts webhooks, `requests` the requests for them with all retries; `retried` and `given_up` count webhooks.
    `acknowledged` holds the ids that were answered 2xx. `wrong` counts answers that mean a mistake in the set-up: a
    4xx for a real webhook, or anything but 401 for a forged one. `seconds` holds how long each answer took.
    """

    def __init__(self) -> None:
        self.sent = self.requests = self.retried = self.given_up = self.wrong = 0
        self.answers: Counter[int] = Counter()
        self.acknowledged: set[str] = set()
        self.seconds: list[float] = []

    def note(self, planned: Planned, answers: list[Response]) -> None:
        """Count the answers to one delivery, the last of which was the final one."""
        self.sent += 1
        self.requests += len(answers)
        self.retried += len(answers) > 1
        self.answers.update(answer.status for answer in answers)
        self.seconds += [answer.seconds for answer in answers if answer.status not in (NO_ANSWER, TIMED_OUT)]
        final = answers[-1].status
        if planned.forged:
            self.wrong += final != 401
            return
        self.wrong += 400 <= final < 500
        if 200 <= final < 300:
            self.acknowledged.add(planned.webhook.id)
        elif final >= 500 or final == NO_ANSWER:
            self.given_up += 1

    def percentile(self, share: float) -> float:
        """Return the seconds within which this share of the answers came, from 0 to 1; 0 without an answer."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Sender:
    """Post deliveries as Whereby does, over connections that are used again.

    A retry goes to the next of the address's hosts. Without a secret, nothing is signed.
    """

    def __init__(self, address: Address, secret: str | None) -> None:
        self._address = address
        self._secret = secret
        self._idle: defaultdict[tuple[str, int], list[_Connection]] = defaultdict(list)
        self._next = 0
        self._ssl = ssl.create_default_context() if address.tls else None

    async def deliver(self, body: bytes, *, forged: bool = False) -> list[Response]:
        """Deliver a body, with retries; return all answers, the final one last. A forged one has a wrong signature."""
        answers: list[Response] = []
        while not answers or (answers[-1].is_retried and len(answers) <= RETRIES):
            if answers:
                await asyncio.sleep(BACKOFF * 2 ** (len(answers) - 1))
            answers.append(await self._post(body, forged))
        return answers

    def close(self) -> None:
        """Close all connections."""
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
        self._idle.clear()

    async def _post(self, body: bytes, forged: bool) -> Response:
        host = self._address.hosts[self._next % len(self._address.hosts)]
        self._next += 1
        began = time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                status = await self._ask(host, self._request(body, forged), body)
        except TimeoutError:
            status = TIMED_OUT
        except (OSError, EOFError, h11.RemoteProtocolError):
            status = NO_ANSWER
        return Response(status, time.monotonic() - began)

    def _request(self, body: bytes, forged: bool) -> h11.Request:
        headers = {"Host": self._address.name, "Content-Type": "application/json", "Content-Length": str(len(body))}
        if self._secret is not None:
            secret = f"not {self._secret}" if forged else self._secret
            headers[SIGNATURE_HEADER] = sign(secret, body, int(time.time()))
        return h11.Request(method="POST", target=self._address.target, headers=list(headers.items()))

    async def _ask(self, host: tuple[str, int], request: h11.Request, body: bytes) -> int:
        idle = self._idle[host]
        connection = idle.pop() if idle else _Connection()
        if time.monotonic() - connection.used_at > IDLE:
            connection.close()
            connection = _Connection()
        try:
            await connection.open(host, self._ssl, self._address.name)
            status = await connection.post(request, body)
        except BaseException:
            connection.close()
            raise
        if connection.reusable:
            idle.append(connection)
        else:
            connection.close()
        return status


class _Connection:
    """Post over one connection, again and again."""

    def __init__(self) -> None:
        self.used_at = time.monotonic()
        self._http = h11.Connection(h11.CLIENT)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self, host: tuple[str, int], tls: ssl.SSLContext | None, name: str) -> None:
        if self._streams is None:
            server_name = name.rpartition(":")[0] or name if tls else None
            self._streams = await asyncio.open_connection(*host, ssl=tls, server_hostname=server_name)

    async def post(self, request: h11.Request, body: bytes) -> int:
        assert self._streams is not None  # noqa: S101 - opened before
        reader, writer = self._streams
        parts = (request, h11.Data(data=body), h11.EndOfMessage())
        writer.write(b"".join(data for part in parts if (data := self._http.send(part)) is not None))
        status = 0
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                break
        if not status:
            raise EOFError("the connection was closed before an answer")
        self.used_at = time.monotonic()
        return status

    @property
    def reusable(self) -> bool:
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


async def send_all(
    plan: Iterable[Planned],
    sender: Sender,
    stop: asyncio.Event,
    noted: Callable[[SimulationReport], None] = lambda _: None,
) -> SimulationReport:
    """Send what is planned, each when it is due, whatever the answers to those before; return the report.

    Once `stop` is set nothing more is sent, and the answers to what was sent are waited for. `noted` is called with
    the report after each answer.
    """
    report = SimulationReport()
    began = time.monotonic()
    under_way: set[asyncio.Task[None]] = set()

    async def deliver(planned: Planned) -> None:
        report.note(planned, await sender.deliver(planned.webhook.raw, forged=planned.forged))
        noted(report)

    for planned in plan:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, began + planned.at - time.monotonic())):
                await stop.wait()
        if stop.is_set():
            break
        task = asyncio.create_task(deliver(planned))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    if under_way:
        await asyncio.wait(under_way)
    return report
