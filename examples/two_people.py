"""An assistant for each room in which at least two people are, however their joins arrive.

whereby-trigger dev two_people.py
"""

from whereby_trigger import Presence, RoomClientJoined, Session, Trigger

trigger = Trigger()


@trigger.when("room.client.joined")
def two_people(webhook: RoomClientJoined, presence: Presence) -> bool:
    return presence.humans is not None and presence.humans >= 2


@trigger.assistant
async def host(session: Session) -> None:
    session.log.info("%s people are here, since %s", session.presence.humans, session.presence.humans_since)
    async for _ in session.webhooks():
        if session.presence.humans == 0:
            return


if __name__ == "__main__":
    trigger.start()
