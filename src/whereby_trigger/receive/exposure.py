"""Whether a request that carries no signature comes from this machine, told from its head alone. Pure.

A tunnel, a proxy and a browser all connect from this machine, so that the address of the connection proves nothing.
What they add to a request does. A proxy that adds nothing and rewrites `Host` cannot be told from a local client:
only a secret keeps out what comes through one.
"""

import re
from collections.abc import Sequence

LOCAL_HOST = re.compile(rb"(localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)

PROXIES = frozenset((b"forwarded", b"via", b"cdn-loop", b"x-amzn-trace-id", b"x-cloud-trace-context", b"x-remote-user"))
"""Header names that proxies, tunnels and load balancers add."""

PROXY_PREFIXES = (
    b"x-forwarded",
    b"x-original-",
    b"x-real-",
    b"x-client-",
    b"x-cluster-",
    b"x-proxy",
    b"x-envoy-",
    b"x-azure-",
    b"x-appengine-",
    b"x-arr-",
    b"x-amz-",
    b"x-vercel-",
    b"x-nf-",
    b"cf-",
    b"fastly-",
    b"fly-",
    b"ngrok-",
    b"tailscale-",
    b"proxy-",
)
PROXY_SUFFIXES = (b"-ip", b"-addr", b"-addr-for", b"-clientip", b"-forwarded-for")
"""How such names begin or end: X-Real-IP, True-Client-IP, CF-Connecting-IP, Remote-Addr and their like."""

PAGES = frozenset((b"origin", b"referer"))
"""Header names that a browser adds to what a web page sends. Source: Fetch Standard, Origin; RFC 9110, 10.1.3."""


def why_not_local(headers: Sequence[tuple[bytes, bytes]], http_version: str = "1.1") -> str | None:
    """Return why a request may come from elsewhere, or None if nothing shows it.

    Names are lower-cased; values have no whitespace around them.
    """
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) != 1 or not LOCAL_HOST.fullmatch(hosts[0]):
        return "no secret is set, and the request's Host is not this machine"
    if http_version == "1.0":
        # What nginx speaks to a server behind it, unless told otherwise, without a header that tells of it.
        return "no secret is set, and the request is HTTP/1.0, which proxies speak"
    for name, value in headers:
        if name in PAGES or (name == b"sec-fetch-site" and value.lower() != b"none"):
            return "no secret is set, and the request came from a web page"
        if name in PROXIES or name.startswith(PROXY_PREFIXES) or name.endswith(PROXY_SUFFIXES):
            return "no secret is set, and the request came through a proxy or tunnel"
    return None
