"""How many files this process may open: more than a shell's default, and what its children get instead.

The default of 1,024 is for programs that use `select`. A server runs out of it by connections alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager

MOST = 65_536
"""More than we can use. Some systems allow a billion, and a program that closes each by number never starts there."""


@contextmanager
def many_files() -> Iterator[None]:
    """Raise the soft limit of open files towards the hard one, for a program that is ours, until the block ends."""
    try:
        import resource
    except ImportError:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft == resource.RLIM_INFINITY or soft >= most or _Raised.by_default is not None:
        yield
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):
        # macOS refuses what its kernel does not allow, whatever the hard limit says.
        yield
        return
    _Raised.by_default = soft
    try:
        yield
    finally:
        _Raised.by_default = None
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def default_files() -> int | None:
    """Return the soft limit before it was raised, or None if it was not."""
    return _Raised.by_default


class _Raised:
    by_default: int | None = None
