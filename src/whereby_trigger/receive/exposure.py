"""Judge from its head whether an unsigned request comes from this machine. Pure.

A tunnel, a proxy and a browser all connect from this machine: the peer's address proves nothing, but the headers that
they add do. A proxy that adds none and rewrites `Host` looks like a local client: only a secret keeps its requests out.
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
"""Prefixes and suffixes of such names: X-Real-IP, True-Client-IP, CF-Connecting-IP, Remote-Addr and similar."""

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
        # By default nginx speaks HTTP/1.0 to the server behind it, and adds no header.
        return "no secret is set, and the request is HTTP/1.0, which proxies speak"
    for name, value in headers:
        if name in PAGES or (name == b"sec-fetch-site" and value.lower() != b"none"):
            return "no secret is set, and the request came from a web page"
        if name in PROXIES or name.startswith(PROXY_PREFIXES) or name.endswith(PROXY_SUFFIXES):
            return "no secret is set, and the request came through a proxy or tunnel"
    return None
