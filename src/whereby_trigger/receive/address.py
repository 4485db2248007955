"""The address that is listened on, or the reason why it cannot be had."""

import errno
import os
import socket

from whereby_trigger.errors import AddressError

BACKLOG = 2048

UNREAD, UNTAKEN = 64 * 1024, 32 * 1024
"""Bytes that the kernel keeps of what a client sends and we do not read, and of answers that it does not take.

By itself it keeps megabytes of each, for each connection, which is memory too. Many times a delivery and an answer fit.
"""


def bind(host: str, port: int) -> socket.socket:
    """Open a listening socket; raises AddressError where the address cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise AddressError(f"the host {host!r} is no address of this machine: use 127.0.0.1 or 0.0.0.0") from error
    listener = socket.socket(family, kind, protocol)
    try:
        # Windows would let two processes have one port by it.
        if os.name != "nt":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Every connection that is accepted inherits these.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UNREAD)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNTAKEN)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise AddressError(_why_not_bound(host, port, error)) from error
    return listener


def _why_not_bound(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use on {host}: stop what listens there, or choose another with --port or port="
    if error.errno == errno.EADDRNOTAVAIL:
        return f"the host {host!r} is no address of this machine: use 127.0.0.1 or 0.0.0.0"
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights than this process has: choose one above 1023"
    return f"{host}:{port} cannot be listened on: {error.strerror}"
