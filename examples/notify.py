"""Notify people if an assistant finally fails, by Slack, PagerDuty, e-mail or any other service that Apprise knows.

    pip install apprise
    export NOTIFY='slack://…' ASSISTANT_KEY=…
    whereby-trigger start notify.py

NOTIFY holds one or more of Apprise's URLs, separated by blanks.
"""

import os

import apprise

from whereby_trigger import (
    ASSISTANT_EVENT_ENDED,
    ASSISTANT_EVENT_FAILED,
    AssistantEvent,
    AssistantRefused,
    Session,
    Trigger,
    is_human,
)

people = apprise.Apprise()
for url in os.environ["NOTIFY"].split():
    if not people.add(url):
        raise SystemExit("NOTIFY: Apprise does not know one of its URLs")

trigger = Trigger(webhook_triggers={"room.client.joined": is_human})


@trigger.assistant
async def assistant(session: Session) -> None:
    if not os.environ.get("ASSISTANT_KEY"):
        raise AssistantRefused("ASSISTANT_KEY is not set", retry=False)
    session.log.info("here until %s", await session.ended)


@trigger.on(ASSISTANT_EVENT_FAILED)
async def tell(event: AssistantEvent) -> None:
    text = f"{event.room_url}: {event.reason} (attempt {event.attempt}, webhook {event.webhook_id or 'none'})"
    if not await people.async_notify(title="No assistant in a room", body=text):
        raise RuntimeError("the notification was not sent")


@trigger.on(ASSISTANT_EVENT_ENDED)
def note(event: AssistantEvent) -> None:
    print(f"{event.room_url}: {event.reason}", flush=True)


if __name__ == "__main__":
    trigger.start()
