"""Sending a webhook to a trigger, built, signed and posted as Whereby does it."""

import json
import secrets
from typing import Any

import click
from msgspec import Struct

from whereby_trigger.cli.app import app_option, resolved
from whereby_trigger.cli.output import FAILED, note, show_lines
from whereby_trigger.cli.post import Signer, TargetAddress, address_of, post
from whereby_trigger.config import NAMES, Settings, read_subdomain
from whereby_trigger.errors import DecodeError
from whereby_trigger.testing import webhook
from whereby_trigger.webhook import Webhook

UNAUTHORIZED = 401

HINTS = {
    401: "its secret is another one: set --secret or WHEREBY_WEBHOOK_SECRET to the one it checks with",
    404: "deliveries are taken at another path there: name it with --url",
    405: "nothing there takes a POST: name the trigger's own address with --url",
    413: "the body is larger than max_body there",
    503: "its store takes no writes now, or it is about to stop: Whereby would try again",
}


class Forgery(Struct, frozen=True):
    """Say what is to be wrong with a signature, if anything."""

    bad: bool
    stale: bool

    @property
    def refused(self) -> bool:
        return self.bad or self.stale


@click.command()
@click.argument("type")
@click.option("--url", help="Where to post it. [default: where `whereby-trigger dev` listens]")
@click.option("--secret", help="What to sign it with. [default: the secret that `whereby-trigger dev` checks with]")
@click.option("--room", help="The room's name. [default: /visit-1]")
@click.option("--subdomain", help="The room's subdomain. [default: acme]")
@click.option("--data", metavar="JSON", help="Fields of its data, an object with Whereby's own names.")
@click.option("--id", help="Its id. [default: a random one]")
@click.option("--bad-signature", is_flag=True, help="Sign it with another secret; a 401 is then as it should be.")
@click.option("--stale", is_flag=True, help="Sign it at a time too long ago; a 401 is then as it should be.")
@click.option("--duplicate", metavar="N", type=click.IntRange(min=0), default=0, help="Deliver it N times more.")
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
    """Send a webhook of a TYPE of Whereby's, realistic and signed, and show the answer.

    Exits with 0 if every answer was what it should be, else with 1.
    """
    if overrides["subdomain"] is not None:
        read_subdomain("--subdomain", overrides["subdomain"])
    built = _build(type, data, {name: value for name, value in overrides.items() if value is not None})
    settings = resolved(app, {"secret": secret}, needed=("secret",) if url else NAMES).settings
    address = address_of(url or _address_of_dev(settings))
    forgery = Forgery(bad_signature, stale)
    signer = _signer(settings, forgery)
    answers = [_deliver(address, built, signer) for _ in range(duplicate + 1)]
    wrong = [status for status in answers if not _is_right(status, forgery)]
    if wrong:
        note(_hint(wrong[0], forgery, signer))
        raise click.exceptions.Exit(FAILED)


def _build(type: str, data: str | None, overrides: dict[str, Any]) -> Webhook:
    try:
        return webhook(type, data=_fields(data), **overrides)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    except DecodeError as error:
        raise click.UsageError(f"that would be no webhook of Whereby's ({error}): change --data or --id") from error


def _fields(data: str | None) -> dict[str, Any]:
    if data is None:
        return {}
    example = """write it like --data '{"roleName": "host"}'"""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"--data is no JSON ({error}): {example}") from error
    if not isinstance(fields, dict):
        raise click.UsageError(f"--data is no JSON object: {example}")
    return fields


def _address_of_dev(settings: Settings) -> str:
    if settings.port == 0:
        raise click.UsageError("port is 0, so that any may have been picked: name the address with --url")
    host = settings.host or ""
    if host in ("", "0.0.0.0", "::"):  # noqa: S104
        host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}{settings.path}"


def _signer(settings: Settings, forgery: Forgery) -> Signer | None:
    if forgery.stale and not settings.secret:
        raise click.UsageError("--stale needs the secret, to sign rightly but too long ago: set --secret")
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
        return f"A {UNAUTHORIZED} would have been right: does that server know a secret, and check with it?"
    if status == UNAUTHORIZED and signer is None:
        return "It was sent unsigned, but that server wants a signature: set --secret or WHEREBY_WEBHOOK_SECRET"
    follow_up = "Whereby would try again" if status >= 500 else "Whereby would not try again"
    return f"Not taken: {HINTS.get(status, follow_up)}"
