"""Whether a request that carries no signature comes from this machine, told from its headers alone."""

import re
from collections.abc import Sequence

LOCAL_HOST = re.compile(rb"(localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
PROXIES = (b"forwarded", b"cf-connecting-ip")
PROXY_PREFIX = b"x-forwarded-"


def why_not_local(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """Say why a request may come from elsewhere, None where nothing tells so.

    A tunnel connects from this machine, so that its address proves nothing; what it adds to the request does.
    """
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) != 1 or not LOCAL_HOST.fullmatch(hosts[0]):
        return "no secret is set, and the request's Host is not this machine"
    if any(name in PROXIES or name.startswith(PROXY_PREFIX) for name, _ in headers):
        return "no secret is set, and the request came through a proxy or tunnel"
    return None
