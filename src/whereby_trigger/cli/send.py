"""`whereby-trigger send`: build, sign and post a webhook as Whereby does."""

import json
import secrets
import string
import time
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

import click
from msgspec import Struct

from whereby_trigger.cli.app import app_option, resolved
from whereby_trigger.cli.output import FAILED, Failed, note, show_lines
from whereby_trigger.config import NAMES, Settings, read_subdomain
from whereby_trigger.errors import DecodeError
from whereby_trigger.webhook import SIGNATURE_HEADER, Webhook, sign

TIMEOUT = 5.0
"""Seconds that Whereby waits for an answer. Source: Whereby docs, Failed delivery."""

UNAUTHORIZED = 401

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
@click.argument("type")
@click.option("--url", metavar="URL", help="Post to this address. [default: where `dev` listens]")
@click.option("--secret", metavar="SECRET", help="Sign with this secret. [default: that of `dev`]")
@click.option("--room", metavar="NAME", help="The room's name. [default: /visit-1]")
@click.option("--subdomain", metavar="NAME", help="The room's subdomain. [default: acme]")
@click.option("--data", metavar="JSON", help="Fields of the data, as an object with Whereby's names.")
@click.option("--id", metavar="ID", help="The webhook's id. [default: a random id]")
@click.option("--bad-signature", is_flag=True, help="Sign with another secret; then 401 is the right answer.")
@click.option("--stale", is_flag=True, help="Sign with a time too long ago; then 401 is the right answer.")
@click.option("--duplicate", metavar="N", type=click.IntRange(min=0), default=0, help="Deliver it N more times.")
@app_option
def send(
    type: str,
    url: str | None,
    secret: str | None,
    data: str | None,
    bad_signature: bool,
    stale: bool,
    duplicate: int,
    app: str | None,
    **overrides: Any,
) -> None:
    """Send a realistic, signed webhook, and show the answer.

    TYPE is one of Whereby's, such as room.client.joined. Exits with 0 if every answer is right, else with 1.
    """
    if overrides["subdomain"] is not None:
        read_subdomain("--subdomain", overrides["subdomain"])
    built = _build(type, data, {name: value for name, value in overrides.items() if value is not None})
    settings = resolved(app, {"secret": secret}, needed=("secret",) if url else NAMES).settings
    address = address_of(url or address_of_dev(settings))
    forgery = Forgery(bad_signature, stale)
    signer = _signer(settings, forgery)
    answers = [_deliver(address, built, signer) for _ in range(duplicate + 1)]
    wrong = [status for status in answers if not _is_right(status, forgery)]
    if wrong:
        note(_hint(wrong[0], forgery, signer))
        raise click.exceptions.Exit(FAILED)


def _build(type: str, data: str | None, overrides: dict[str, Any]) -> Webhook:
    from whereby_trigger.testing import webhook
    from whereby_trigger.webhook.types import ROOM_TYPES

    try:
        # Without a session, an end ends what came before it, and the next join begins another meeting.
        session = {"roomSessionId": None} if type in ROOM_TYPES else {}
        return webhook(type, data=session | _fields(data), **overrides)
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


def _deliver(address: TargetAddress, built: Webhook, signer: Signer | None) -> int:
    answer = post(address, built.raw, signer)
    show_lines(f"{answer.status} {answer.phrase}  {built.type}  {built.id}  {answer.seconds * 1000:.1f} ms")
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
