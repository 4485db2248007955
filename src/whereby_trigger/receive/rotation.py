"""The rotation of the webhook's secret: its file is read again when it changes, without a restart."""

import asyncio
import logging
from typing import Protocol

from whereby_trigger.config import SECRET_FILE, secrets_in
from whereby_trigger.errors import ConfigError
from whereby_trigger.threads import in_thread

logger = logging.getLogger("whereby_trigger.receive")

LOOK = 2.0
"""Seconds between looks at the file. Kubernetes and systemd replace it, which nothing announces."""


class Trusting(Protocol):
    """Verify deliveries with secrets that may be replaced."""

    @property
    def trusted(self) -> tuple[str, ...]: ...

    def trust(self, secrets: tuple[str, ...]) -> None: ...


async def follow_secret(path: str, receiver: Trusting) -> None:
    """Have a receiver trust what the secret's file says, until cancelled.

    A file that is missing, blank or unreadable changes nothing, and is told once: a delivery that is refused is lost.
    """
    told = ""
    while True:
        await asyncio.sleep(LOOK)
        try:
            found = await in_thread(secrets_in, path)
        except ConfigError as error:
            if told != str(error):
                told = str(error)
                logger.warning("%s; the secret that was read before stays valid", told)
            continue
        told = ""
        if found != receiver.trusted:
            receiver.trust(found)
            number = "1 secret is" if len(found) == 1 else f"{len(found)} secrets are"
            logger.info("%s has changed: %s valid now", SECRET_FILE, number)
