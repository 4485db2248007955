"""`whereby-trigger send`: build, sign and post a webhook as Whereby does."""

import asyncio
import json
import secrets
import string
import time
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit
from uuid import uuid4

import click
from msgspec import Struct

from whereby_trigger.cli.arguments import (
    app_option,
    complete_room,
    complete_type,
    resolved,
    store_option,
    store_to_read,
)
from whereby_trigger.cli.output import FAILED, Failed, note, show_lines
from whereby_trigger.config import NAMES, Settings, read_subdomain
from whereby_trigger.deliveries import session_id
from whereby_trigger.errors import DecodeError, StoreError
from whereby_trigger.store import Query, Record, State, Store
from whereby_trigger.webhook import ROOM_TYPES, SIGNATURE_HEADER, Webhook, decode, room_named, room_of, sign

TIMEOUT = 5.0
"""Seconds that Whereby waits for an answer. Source: Whereby docs, Failed delivery."""

DECIDED_WITHIN = 15.0
"""Seconds that `--wait` waits for a decision: a predicate has 10 s by default."""

KNOWN_WITHIN = 2.0
"""Seconds that the store has to name a room's session."""

LOOK_EVERY = 0.1
"""Seconds between looks at the store for the decision."""

NEWEST = 20
"""Webhooks of a room among which its session is looked for."""

SESSION = "roomSessionId"
"""The field of a webhook's data that names its session. Source: Whereby docs, webhooks."""

OK, UNAUTHORIZED = 200, 401

HINTS = {
    401: "the server checks with another secret: set --secret or WHEREBY_WEBHOOK_SECRET to that one",
    404: "the server takes deliveries at another path: name it with --url",
    405: "that address takes no POST: name the trigger's own address with --url",
    413: "the body is larger than the server's max_body: send less, or raise max_body",
    503: "its store takes no writes, or the server is stopping: Whereby would retry",
}


class Forgery(Struct, frozen=True):
    """Hold what is deliberately wrong with a signature, if anything."""

    bad: bool
    stale: bool

    @property
    def refused(self) -> bool:
        return self.bad or self.stale


class Signer(Struct, frozen=True):
    """Sign with a secret, at the present time plus `skew` seconds."""

    secret: str
    skew: float = 0.0

    def header(self, body: bytes) -> str:
        return sign(self.secret, body, int(time.time() + self.skew))


class PostAnswer(Struct, frozen=True):
    """Hold the status of an answer, its phrase, and how many seconds it took."""

    status: int
    phrase: str
    seconds: float


class TargetAddress(Struct, frozen=True):
    """Hold the parts of the URL to post to."""

    url: str
    tls: bool
    host: str
    port: int | None
    target: str


@click.command()
@click.argument("type", shell_complete=complete_type)
@click.option("--url", metavar="URL", help="Post to this address. [default: where `dev` listens]")
@click.option("--secret", metavar="SECRET", help="Sign with this secret. [default: that of `dev`]")
@click.option(
    "--room",
    metavar="ROOM",
    help="The room: a URL, a key or a name. [default: /visit-1]",
    shell_complete=complete_room(names=True),
)
@click.option("--subdomain", metavar="NAME", help="The room's subdomain. [default: acme]")
@click.option("--data", metavar="JSON", help="Fields of the data, as an object with Whereby's names.")
@click.option("--id", metavar="ID", help="The webhook's id. [default: a random id]")
@click.option("--session", metavar="ID", help="The room session's id. [default: that of the room's newest webhook]")
@click.option("--new-session", is_flag=True, help="Begin another session in the room.")
@click.option("--wait", is_flag=True, help="Wait for the decision, and print it with its reason.")
@click.option("--bad-signature", is_flag=True, help="Sign with another secret; then 401 is the right answer.")
@click.option("--stale", is_flag=True, help="Sign with a time too long ago; then 401 is the right answer.")
@click.option("--duplicate", metavar="N", type=click.IntRange(min=0), default=0, help="Deliver it N more times.")
@app_option
@store_option
def send(
    type: str,
    url: str | None,
    secret: str | None,
    data: str | None,
    bad_signature: bool,
    stale: bool,
    duplicate: int,
    session: str | None,
    new_session: bool,
    wait: bool,
    app: str | None,
    store: str | None,
    **overrides: Any,
) -> None:
    """Send a realistic, signed webhook, and show the answer.

    TYPE is one of Whereby's, such as room.client.joined. A room keeps its session from call to call, by the store,
    until it has ended; room.session.started begins another. Exits with 0 if every answer is right, else with 1.
    """
    if session is not None and new_session:
        raise click.UsageError("--session names a session and --new-session makes one up: choose one of them")
    if overrides["subdomain"] is not None:
        read_subdomain("--subdomain", overrides["subdomain"])
    if overrides["room"] is not None:
        overrides |= _place(overrides["room"], overrides["subdomain"])
    needed = ("secret", "store") if wait else ("secret",)
    settings = resolved(app, {"secret": secret, "store": store}, needed=needed if url else NAMES).settings
    fields, given = _fields(data), {name: value for name, value in overrides.items() if value is not None}
    built = _build(type, fields, given)
    names_session = hasattr(built.data, "room_session_id")
    if session is not None and not names_session:
        raise click.UsageError(f"a webhook of the type {type} names no session: leave out --session")
    before = asyncio.run(_known(settings.store, built))
    if session is None and not new_session and type != "room.session.started":
        session = before.session
    chosen = type in ROOM_TYPES or session is not None or new_session
    if names_session and chosen and SESSION not in fields:
        # A new one by chance: those of the builder are the same in each call.
        built = _build(type, fields | {SESSION: session or str(uuid4())}, given | {"id": built.id})
    address = address_of(url or address_of_dev(settings))
    forgery = Forgery(bad_signature, stale)
    signer = _signer(settings, forgery)
    answers = [_deliver(address, built, signer, stored=before.stored or n > 0) for n in range(duplicate + 1)]
    wrong = [status for status in answers if not _is_right(status, forgery)]
    if wrong:
        note(_hint(wrong[0], forgery, signer))
        raise click.exceptions.Exit(FAILED)
    if wait and not forgery.refused:
        record = asyncio.run(_decided(settings.store, built.id, spills=settings.spill is not None))
        show_lines(f"{record.state}  {record.reason}")


def _place(text: str, subdomain: str | None) -> dict[str, str | None]:
    """Return the name and the subdomain of a room from its URL or its key; of a name, nobody knows the subdomain."""
    room = room_named(text, None)
    if room is None:
        return {"room": text, "subdomain": subdomain}
    if subdomain is not None and subdomain.lower() != room.subdomain:
        raise click.UsageError(f"--room is one of {room.subdomain}.whereby.com: leave out --subdomain")
    return {"room": room.name, "subdomain": room.subdomain}


class Known(Struct, frozen=True):
    """Hold what a store knows before a webhook is sent: if it has its id, and the session that its room is in."""

    stored: bool = False
    session: str | None = None


async def _known(url: str, built: Webhook) -> Known:
    """Look into the store, if it can be read; the server may have another one."""
    room = room_of(built)
    try:
        async with asyncio.timeout(KNOWN_WITHIN), store_to_read(url) as store:
            stored = bool(await store.find(Query(ids=(built.id,))))
            newest = [] if room is None else await store.find(Query(room=room.key, limit=NEWEST))
    except (StoreError, TimeoutError):
        return Known()
    return Known(stored, _session_of(newest))


def _session_of(newest: list[Record]) -> str | None:
    """Return the session of the newest webhook that names one and is no end, or None if it has ended since."""
    ended: set[str] = set()
    for record in newest:
        try:
            webhook = decode(record.body)
        except DecodeError:
            continue
        session = session_id(webhook)
        if session is not None and webhook.type == "room.session.ended":
            # It may be the late end of an earlier one.
            ended.add(session)
        elif session is not None:
            return None if session in ended else session
    return None


async def _decided(url: str, id: str, *, spills: bool) -> Record:
    """Wait until a webhook is decided; raises Failed if it is not in time, and StoreError if there is no store.

    A server that `spills` answers 200 also while its store is away or not made yet: then this waits for the store, too.
    """
    give_up = time.monotonic() + DECIDED_WITHIN
    while True:
        try:
            async with store_to_read(url) as store:
                return await _decision_in(store, id, give_up)
        except StoreError:
            if not spills or time.monotonic() > give_up:
                raise
        await asyncio.sleep(LOOK_EVERY)


async def _decision_in(store: Store, id: str, give_up: float) -> Record:
    while True:
        found = await store.find(Query(ids=(id,)))
        if found and found[0].state is not State.PENDING:
            return found[0]
        if time.monotonic() > give_up:
            break
        await asyncio.sleep(LOOK_EVERY)
    if not found:
        raise Failed(f"{store.location} has no webhook {id}: name the store of the server that took it, with --store")
    raise Failed(f"{id} is not decided after {DECIDED_WITHIN:g} s: see the trigger's log, and `events show {id[:12]}`")


def _build(type: str, data: dict[str, Any], overrides: dict[str, Any]) -> Webhook:
    from whereby_trigger.testing import webhook

    try:
        return webhook(type, data=data, **overrides)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    except DecodeError as error:
        raise click.UsageError(
            f"that is not a webhook that Whereby would send ({error}): change --data or --id"
        ) from error


def _fields(data: str | None) -> dict[str, Any]:
    if data is None:
        return {}
    example = """write it like --data '{"roleName": "host"}'"""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"--data is not JSON ({error}): {example}") from error
    if not isinstance(fields, dict):
        raise click.UsageError(f"--data is not a JSON object: {example}")
    return fields


def address_of_dev(settings: Settings) -> str:
    """Return the URL at which `dev` listens with these settings; raises click.UsageError if any port would do."""
    if settings.port == 0:
        raise click.UsageError("port is 0, which means any free port: name the address with --url")
    host = settings.host or ""
    if host in ("", "0.0.0.0", "::"):  # noqa: S104
        host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}{settings.path}"


def _signer(settings: Settings, forgery: Forgery) -> Signer | None:
    if forgery.stale and not settings.secret:
        raise click.UsageError("--stale needs the right secret, and signs with an old time: set --secret")
    secret = secrets.token_hex(32) if forgery.bad else next(iter(settings.secret), None)
    if secret is None:
        return None
    return Signer(secret, -2 * settings.tolerance if forgery.stale else 0.0)


def _deliver(address: TargetAddress, built: Webhook, signer: Signer | None, *, stored: bool) -> int:
    answer = post(address, built.raw, signer)
    duplicate = "  duplicate" if stored and answer.status == OK else ""
    show_lines(f"{answer.status} {answer.phrase}  {built.type}  {built.id}  {answer.seconds * 1000:.1f} ms{duplicate}")
    return answer.status


def _is_right(status: int, forgery: Forgery) -> bool:
    return status == UNAUTHORIZED if forgery.refused else 200 <= status < 300


def _hint(status: int, forgery: Forgery, signer: Signer | None) -> str:
    if forgery.refused:
        return f"The right answer is {UNAUTHORIZED}: check that the server has a secret"
    if status == UNAUTHORIZED and signer is None:
        return "The webhook was sent unsigned, and the server checks signatures: set --secret or WHEREBY_WEBHOOK_SECRET"
    follow_up = "Whereby would retry" if status >= 500 else "Whereby would not retry"
    return f"Refused: {HINTS.get(status, follow_up)}"


def address_of(url: str) -> TargetAddress:
    """Parse a URL to post to; raises click.UsageError if it is not one."""
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname or ""
        host.encode("idna")
    except ValueError as error:
        raise click.UsageError(f"--url {url!r} is not a URL ({error})") from error
    if parts.scheme not in ("http", "https") or not host or " " in host or not host.isprintable():
        raise click.UsageError(f"--url {url!r} is not an http or https URL: write it like http://127.0.0.1:8080/")
    return TargetAddress(url, parts.scheme == "https", host, port, _target(parts))


def post(address: TargetAddress, body: bytes, signer: Signer | None) -> PostAnswer:
    """Post a body, signed if there is a signer; raises Failed if no answer arrives."""
    headers = {"Content-Type": "application/json"}
    if signer is not None:
        headers[SIGNATURE_HEADER] = signer.header(body)
    started = time.monotonic()
    kind = HTTPSConnection if address.tls else HTTPConnection
    connection = kind(address.host, address.port, timeout=TIMEOUT)
    try:
        connection.request("POST", address.target, body, headers)
        response = connection.getresponse()
        response.read()
    except ConnectionRefusedError as error:
        raise Failed(
            f"nothing listens at {address.url} (connection refused): "
            "start `whereby-trigger dev` there, or name another address with --url"
        ) from error
    except TimeoutError as error:
        raise Failed(
            f"no answer from {address.url} within {TIMEOUT:g} s: Whereby would give up and retry; see the trigger's log"
        ) from error
    except (OSError, HTTPException) as error:
        raise Failed(f"cannot post to {address.url}: {type(error).__name__}: {error}; check the address") from error
    finally:
        connection.close()
    return PostAnswer(response.status, response.reason, time.monotonic() - started)


def _target(parts: SplitResult) -> str:
    path = parts.path or "/"
    target = f"{path}?{parts.query}" if parts.query else path
    return quote(target, safe=string.punctuation, errors="surrogateescape")
