"""The program that the files in this folder run: an assistant that logs each meeting. Replace it by your own.

Credentials come from the files `webhook-secret` and `store-url` in the folder that CREDENTIALS_DIRECTORY names, if a
platform mounts them there, and otherwise from WHEREBY_WEBHOOK_SECRET and WHEREBY_TRIGGER_STORE.
"""

import os
from pathlib import Path

from whereby_trigger import Session, Trigger, is_human

CREDENTIALS = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/run/secrets"))


def credential(name: str) -> str | None:
    """Return a mounted credential, or None: then the environment applies."""
    file = CREDENTIALS / name
    return file.read_text(encoding="utf-8").strip() if file.exists() else None


webhook_secret = credential("webhook-secret")

trigger = Trigger(
    webhook_triggers={"room.client.joined": is_human, "assistant.requested": lambda: True},
    secret=webhook_secret and webhook_secret.split(","),
    store=credential("store-url"),
)


@trigger.assistant
async def attendant(session: Session) -> None:
    session.log.info("attending %s, attempt %d", session.room_name, session.attempt)
    async for webhook in session.webhooks():
        people = "unknown" if session.humans is None else session.humans
        session.log.info("%s in %s, people there: %s", webhook.type, session.room_name, people)
        if session.humans == 0:
            break
    session.log.info("leaving %s: %s", session.room_name, session.ended.reason or "nobody is left")


if __name__ == "__main__":
    trigger.start()
