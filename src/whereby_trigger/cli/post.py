"""One delivery made over HTTP, as Whereby makes it."""

import string
import time
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import SplitResult, quote, urlsplit

import click
from msgspec import Struct

from whereby_trigger.cli.output import Failed
from whereby_trigger.webhook import SIGNATURE_HEADER, sign

TIMEOUT = 5.0
"""Seconds after which Whereby gives up on an answer. Source: Whereby docs, Failed delivery."""


class Signer(Struct, frozen=True):
    """Sign with a secret, at a time that is off by so many seconds."""

    secret: str
    skew: float = 0.0

    def header(self, body: bytes) -> str:
        return sign(self.secret, body, int(time.time() + self.skew))


class PostAnswer(Struct, frozen=True):
    """Hold what came back, and after how many seconds."""

    status: int
    phrase: str
    seconds: float


class TargetAddress(Struct, frozen=True):
    """Hold the parts of a URL that is posted to."""

    url: str
    tls: bool
    host: str
    port: int | None
    target: str


def address_of(url: str) -> TargetAddress:
    """Read a URL; raises click.UsageError where nothing can be posted to it."""
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname or ""
        host.encode("idna")
    except ValueError as error:
        raise click.UsageError(f"--url {url!r} is no URL ({error})") from error
    if parts.scheme not in ("http", "https") or not host or " " in host or not host.isprintable():
        raise click.UsageError(f"--url {url!r} is no http or https URL: write it like http://127.0.0.1:8080/")
    return TargetAddress(url, parts.scheme == "https", host, port, _target(parts))


def post(address: TargetAddress, body: bytes, signer: Signer | None) -> PostAnswer:
    """Deliver a body, signed unless there is no signer; raises Failed where no answer comes back."""
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
            "start `whereby-trigger dev` there, or name another place with --url"
        ) from error
    except TimeoutError as error:
        raise Failed(
            f"no answer from {address.url} within {TIMEOUT:g} s: Whereby would give up, and try again"
        ) from error
    except (OSError, HTTPException) as error:
        raise Failed(f"{address.url} cannot be posted to: {type(error).__name__}: {error}") from error
    finally:
        connection.close()
    return PostAnswer(response.status, response.reason, time.monotonic() - started)


def _target(parts: SplitResult) -> str:
    path = parts.path or "/"
    target = f"{path}?{parts.query}" if parts.query else path
    return quote(target, safe=string.punctuation, errors="surrogateescape")
