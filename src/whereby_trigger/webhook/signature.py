"""The `Whereby-Signature` header: `t=<unix seconds>,v1=<hex>`.

`v1` is HMAC-SHA256(secret, `t` + `.` + body) in hex, over the raw bytes of both.
Source: Whereby docs, Validating events.
"""

import hmac
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from whereby_trigger.errors import SignatureError

SIGNATURE_HEADER = "Whereby-Signature"

_MAX_HEADER_BYTES = 1024
_MAX_SIGNATURES = 5

_ITEM = rb"(?:t=[0-9]{1,12}|v1=[0-9A-Fa-f]{64}|(?!(?:t|v1)=)[A-Za-z0-9_-]+=[!-+\--~]+)"
_HEADER = re.compile(rb"%b(?: *, *%b)*" % (_ITEM, _ITEM))


def sign(secret: str, body: bytes, timestamp: int) -> str:
    """Return the header value for a body, as Whereby sends it.

    `timestamp` is unix seconds, not negative.
    """
    t = b"%d" % timestamp
    return f"t={t.decode()},v1={_digest(secret, t, body).hex()}"


def verify(header: bytes | None, body: bytes, secrets: Sequence[str], now: float, tolerance: float = 300.0) -> None:
    """Check that one of the secrets signed the body, at most `tolerance` seconds from now.

    `header` is the value as received, None if there was none; the caller must refuse a delivery with two
    headers. `now` is unix seconds. A blank secret never matches: anyone could sign with it.
    Raises `SignatureError`; its `skew`, in seconds, is set only if the signature itself is right.
    """
    if not header:
        raise SignatureError("no signature")
    t, signatures = _parse(header)
    if not _is_signed(secrets, t, body, signatures):
        raise SignatureError("wrong signature")
    skew = int(t) - now
    if abs(skew) > tolerance:
        raise SignatureError("stale signature" if skew < 0 else "signature from the future", skew=skew)


def _parse(header: bytes) -> tuple[bytes, list[bytes]]:
    if len(header) > _MAX_HEADER_BYTES or not _HEADER.fullmatch(header):
        raise SignatureError("malformed signature")
    times, signatures = [], []
    for item in header.split(b","):
        scheme, _, value = item.strip(b" ").partition(b"=")
        if scheme == b"t":
            times.append(value)
        elif scheme == b"v1":
            signatures.append(bytes.fromhex(value.decode("ascii")))
    if len(times) != 1 or not 1 <= len(signatures) <= _MAX_SIGNATURES:
        raise SignatureError("malformed signature")
    return times[0], signatures


def _is_signed(secrets: Sequence[str], t: bytes, body: bytes, signatures: Iterable[bytes]) -> bool:
    for secret in secrets:
        if secret.strip():
            expected = _digest(secret, t, body)
            for signature in signatures:
                if hmac.compare_digest(expected, signature):
                    return True
    return False


def _digest(secret: str, t: bytes, body: bytes) -> bytes:
    signing = _keyed(secret).copy()
    signing.update(b"%b.%b" % (t, body))
    return signing.digest()


@lru_cache(maxsize=16)
def _keyed(secret: str) -> hmac.HMAC:
    """Return an HMAC to copy: the key takes half the time of a short one."""
    return hmac.new(secret.encode(), digestmod="sha256")
