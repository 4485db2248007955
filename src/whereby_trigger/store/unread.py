"""What the store holds and nobody has queued: shared by those who put it there and the one who reads it."""

import asyncio


class Unread:
    """Know whether this replica has pending webhooks in its store that are not queued, and wake who reads them.

    They may be older than what arrives, which is not queued before they have been read: so no webhook overtakes an
    older one of its room.
    """

    def __init__(self) -> None:
        # Until the store has been read once, an older webhook of any room may be in it.
        self.behind = True
        self._missed = False
        self._readable = True
        self.due = True
        self.woken = asyncio.Event()

    @property
    def awaited(self) -> bool:
        """Whether there are such webhooks, in a store that can be read."""
        return self.behind and self._readable

    def fall_behind(self) -> None:
        """Note that there are webhooks in the store that are not queued."""
        self.behind = self._missed = self._readable = True

    def look(self) -> None:
        """Ask for the store to be read now."""
        self.due = True
        self.woken.set()

    def begin_reading(self) -> None:
        """Note that the store is about to be read."""
        self._missed = False

    def end_reading(self, *, complete: bool) -> None:
        """Note that the store was read, to its end or not."""
        if complete and not self._missed:
            self.behind = False

    def cannot_read(self) -> None:
        """Note that the store cannot be read now: a drain leaves it to the next start."""
        self._readable = False
