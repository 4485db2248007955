"""The program that the files of this folder run: an assistant that notes how each meeting goes. Put yours in its place.

What opens doors comes from files where a platform mounts them, `webhook-secret` and `store-url` in the folder that
CREDENTIALS_DIRECTORY names, and from WHEREBY_WEBHOOK_SECRET and WHEREBY_TRIGGER_STORE where it does not.
"""

import os
from pathlib import Path

from whereby_trigger import Session, Trigger, is_human

CREDENTIALS = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/run/secrets"))


def credential(name: str) -> str | None:
    """Read a mounted credential; None where there is none, so that the environment is asked."""
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
