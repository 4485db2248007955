"""Whereby's side of the wire: deliveries posted over real HTTP, signed as Whereby signs them."""

import time
from dataclasses import dataclass
from http.client import HTTPConnection
from urllib.parse import urlsplit

from whereby_trigger.testing import sign
from whereby_trigger.webhook import WebhookBase

SECRET = "the secret of the tests"
WITHIN = 10.0


@dataclass(frozen=True)
class Answer:
    """Hold the answer to a delivery; the names of headers are lower-cased."""

    status: int
    headers: dict[str, str]
    body: bytes


def post(url: str, body: bytes, headers: dict[str, str]) -> Answer:
    """Make one POST request, following no redirect."""
    return request("POST", url, body, headers)


def request(method: str, url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
    """Make one request and read its answer."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=WITHIN)
    try:
        connection.request(method, parts.path or "/", body, headers or {})
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, response.read())
    finally:
        connection.close()


def deliver(url: str, webhook: WebhookBase | bytes, secret: str | None = SECRET, age: float = 0) -> Answer:
    """Deliver a webhook, signed `age` seconds ago, or unsigned if `secret` is None."""
    body = webhook if isinstance(webhook, bytes) else webhook.raw
    headers = {"content-type": "application/json"}
    if secret is not None:
        headers["whereby-signature"] = sign(secret, body, int(time.time() - age))
    return post(url, body, headers)
