"""An assistant as a coroutine: it keeps the minutes of each room, which needs no media, and leaves when it is alone.

whereby-trigger dev coroutine_assistant.py
whereby-trigger send room.client.joined --room /visit-1
"""

from collections import Counter

from whereby_trigger import RoomClientJoined, Session, Trigger, is_human

trigger = Trigger(webhook_triggers={"room.client.joined": is_human})


@trigger.assistant
async def minutes(session: Session) -> None:
    session.log.info("keeping the minutes, attempt %d", session.attempt)
    heard: Counter[str] = Counter()
    async for webhook in session.webhooks():
        heard[webhook.type] += 1
        if isinstance(webhook, RoomClientJoined):
            people = "unknown" if session.humans is None else session.humans
            session.log.info("people here: %s", people)
        if session.humans == 0:
            break
    why = session.ended.reason or "nobody is left"
    session.log.info("%s; heard %s", why, dict(heard) or "nothing")


if __name__ == "__main__":
    trigger.start()
