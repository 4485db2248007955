"""Bind the address to listen on, and keep its sockets from forked processes."""

import errno
import os
import socket
import weakref
from collections.abc import Iterator
from typing import Protocol

from whereby_trigger.callables import in_notebook
from whereby_trigger.errors import AddressError

BACKLOG = 4096
"""Connections that may wait to be accepted, as many as Linux admits by default. One more is a second late."""

IN_NOTEBOOK = (
    "a Trigger that a cell of this notebook made before may still serve there, so stop() that one first; "
    "or stop what else listens there, or choose another with port="
)

UNREAD, UNTAKEN = 64 * 1024, 32 * 1024
"""Bytes that the kernel buffers for a connection: of a client's unread requests, and of our unread answers.

By default it buffers megabytes of each, which is memory too. A delivery and its answer fit many times.
"""


_reserved: dict[tuple[str, int], socket.socket] = {}


def reserve(host: str, port: int) -> int:
    """Listen on a port, or on any free one if it is taken, until `bind` asks for it; return the port."""
    try:
        listener = bind(host, port)
    except AddressError:
        listener = bind(host, 0)
    taken = int(listener.getsockname()[1])
    _reserved[host, taken] = listener
    return taken


def bind(host: str, port: int, setting: str = "port") -> socket.socket:
    """Return a listening socket; raises AddressError, which names the setting, if the address is not available."""
    if (reserved := _reserved.pop((host, port), None)) is not None:
        return reserved
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise AddressError(f"the host {host!r} is not an address of this machine: use 127.0.0.1 or 0.0.0.0") from error
    listener = socket.socket(family, kind, protocol)
    try:
        # On Windows it would let two processes share a port.
        if os.name != "nt":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit these.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UNREAD)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNTAKEN)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise AddressError(_why_not_bound(host, port, setting, error)) from error
    return listener


def _why_not_bound(host: str, port: int, setting: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE and setting != "port":
        return (
            f"{setting}: port {port} is in use on {host}, maybe by another replica, since each serves its own: give "
            f"each process a port of its own with --{setting} or {setting}=, or mount trigger.{setting} in your app"
        )
    if error.errno == errno.EADDRINUSE:
        stop = "stop what listens there, or choose another with --port or port="
        return f"port {port} is in use on {host}: {IN_NOTEBOOK if in_notebook() else stop}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"the host {host!r} is not an address of this machine: use 127.0.0.1 or 0.0.0.0"
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights than this process has: choose one above 1023"
    return f"cannot listen on {host}:{port}: {error.strerror}"


class Sockets(Protocol):
    """Has open sockets, which a forked process must not keep open."""

    def descriptors(self) -> Iterator[int]: ...


_KEPT: "weakref.WeakSet[Sockets]" = weakref.WeakSet()


def keep_from_forks(sockets: Sockets) -> None:
    """Close sockets in each process that is forked from now on, such as one of a ProcessPoolExecutor.

    Otherwise they stay open there when the parent is killed: the port stays taken, and senders wait for an answer. Each
    descriptor is replaced and not freed: this copy of the parent may still close it by number.
    """
    _KEPT.add(sockets)


def _leave_sockets_to_the_parent() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for sockets in list(_KEPT):
        for descriptor in sockets.descriptors():
            if descriptor >= 0:
                os.dup2(nothing, descriptor, inheritable=False)
    os.close(nothing)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_sockets_to_the_parent)
