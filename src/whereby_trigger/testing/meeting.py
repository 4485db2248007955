"""Build the webhooks of one meeting: ids, counts and times that fit each other."""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from msgspec import UNSET, Struct, UnsetType

from whereby_trigger.store import Decision
from whereby_trigger.testing.builder import webhook, wire_fields
from whereby_trigger.webhook.types import (
    WEBHOOK_CLASSES,
    AssistantRequested,
    RecordingFinished,
    RoomClientJoined,
    RoomClientKnockCancelled,
    RoomClientKnocked,
    RoomClientLeft,
    RoomSessionEnded,
    RoomSessionStarted,
    TranscriptionFailed,
    TranscriptionFinished,
    TranscriptionStarted,
    WebhookBase,
)

W = TypeVar("W", bound=WebhookBase)
TYPES: Final[Mapping[type[WebhookBase], str]] = {kind: type for type, kind in WEBHOOK_CLASSES.items()}

NAMES = ("Robin", "Kim", "Sam", "Alex", "Noor", "Jo", "Sasha", "Ari", "Charlie", "Mika")
"""First names of invented people."""


class Participant(Struct, frozen=True):
    """Describe somebody in a meeting, or at its door: a person, or a bot by its role."""

    role: str
    name: str
    fields: dict[str, Any]

    @property
    def id(self) -> str:
        """The participant's id, which is the same in all webhooks about them."""
        return str(self.fields["participantId"])


class Meeting:
    """Build the webhooks that Whereby would send for one meeting in a room, one for each call.

    All have one session, `session_id`, random by default; None leaves it out, as Whereby sometimes does. `begin` is
    when the meeting begins, by default now. Each call takes `at`, in seconds after `begin`; without it, `now()` says
    when it happens. `fields` are more fields of a webhook's data, by their Python or wire names; `data` takes wire
    names, even unknown ones. Raises TypeError for an unknown one of `fields`.

    >>> meeting = Meeting("/visit-1")
    >>> meeting.join("host").data.num_clients
    1
    >>> meeting.join("visitor", name="Kim").data.num_clients
    2
    >>> meeting.leave("Kim").data.num_clients_by_role_name
    {'host': 1}
    """

    def __init__(
        self,
        room: str = "/visit-1",
        *,
        subdomain: str = "acme",
        session_id: str | UnsetType | None = UNSET,
        begin: datetime | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        make_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self.room = room
        self.subdomain = subdomain
        self._make_id = make_id
        self.session_id = make_id() if isinstance(session_id, UnsetType) else session_id
        self.begin = begin or now()
        self._now = now
        self._meeting_id = str(10_000_000 + hash_of(self.session_id or room) % 90_000_000)
        self._present: list[Participant] = []
        self._knocking: list[Participant] = []
        self._transcription = ""
        self._joined = 0

    @property
    def present(self) -> tuple[Participant, ...]:
        """Everybody in the meeting, in the order in which they joined."""
        return tuple(self._present)

    def join(
        self,
        role: str = "visitor",
        *,
        name: str | None = None,
        at: float | None = None,
        data: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> RoomClientJoined:
        """Let somebody join; bots join by their role, such as `assistant`."""
        participant = self._participant(role, name, wire_fields("room.client.joined", fields, data))
        self._present.append(participant)
        return self._build(RoomClientJoined, self._counted(participant), at)

    def leave(self, who: str | None = None, *, at: float | None = None) -> RoomClientLeft:
        """Let somebody leave: by name, else by role, the newest of these; by default whoever joined last.

        Raises ValueError if nobody like that is in the meeting.
        """
        participant = _find(self._present, who, "in the meeting")
        self._present.remove(participant)
        return self._build(RoomClientLeft, self._counted(participant), at)

    def knock(
        self,
        name: str | None = None,
        *,
        at: float | None = None,
        data: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> RoomClientKnocked:
        """Let a visitor knock at a locked room."""
        participant = self._participant("visitor", name, wire_fields("room.client.knocked", fields, data))
        self._knocking.append(participant)
        return self._build(RoomClientKnocked, participant.fields | self._session(), at)

    def cancel_knock(self, who: str | None = None, *, at: float | None = None) -> RoomClientKnockCancelled:
        """Let somebody who knocks go away, by name; by default whoever knocked last.

        Raises ValueError if nobody like that knocks.
        """
        participant = _find(self._knocking, who, "at the door")
        self._knocking.remove(participant)
        return self._build(RoomClientKnockCancelled, participant.fields | self._session(), at)

    def start(self, *, at: float | None = None) -> RoomSessionStarted:
        """Start the session. Whereby sends this once two are in the room."""
        return self._build(RoomSessionStarted, self._session(), at)

    def end(self, *, at: float | None = None) -> RoomSessionEnded:
        """End the session, with everybody in it."""
        self._present.clear()
        return self._build(RoomSessionEnded, self._session(), at)

    def request_assistant(self, *, at: float | None = None) -> AssistantRequested:
        """Let somebody invite an assistant."""
        return self._build(AssistantRequested, self._session(), at)

    def start_transcription(self, *, at: float | None = None) -> TranscriptionStarted:
        """Start a live transcription."""
        self._transcription = self._make_id()
        return self._build(TranscriptionStarted, self._transcribed(), at)

    def finish_transcription(self, *, at: float | None = None) -> TranscriptionFinished:
        """Finish the transcription that was started last, which then has the file of its text."""
        lasted = max(0, round((self._time(at) - self.begin).total_seconds()))
        data = self._transcribed() | {"durationInSeconds": lasted}
        return self._build(TranscriptionFinished, data, at)

    def fail_transcription(
        self, error: str = "The audio could not be read", *, at: float | None = None
    ) -> TranscriptionFailed:
        """Let the transcription that was started last fail."""
        return self._build(TranscriptionFailed, self._transcribed() | {"error": error}, at)

    def finish_recording(self, *, at: float | None = None) -> RecordingFinished:
        """Finish a recording, whose file is ready then."""
        id = self._make_id()
        return self._build(RecordingFinished, {"recordingId": id, "filename": f"{id}.mp4"}, at)

    def _participant(self, role: str, name: str | None, given: dict[str, Any]) -> Participant:
        self._joined += 1
        named = name or f"{NAMES[(self._joined - 1) % len(NAMES)]} Example"
        fields = {"displayName": named, "participantId": self._make_id(), "metadata": None, "externalId": None}
        return Participant(role, named, fields | given)

    def _counted(self, participant: Participant) -> dict[str, Any]:
        roles = [present.role for present in self._present]
        return (
            self._session()
            | participant.fields
            | {
                "roleName": participant.role,
                "numClients": len(roles),
                "numClientsByRoleName": {role: roles.count(role) for role in dict.fromkeys(roles)},
            }
        )

    def _session(self) -> dict[str, Any]:
        return {"roomSessionId": self.session_id, "meetingId": self._meeting_id}

    def _transcribed(self) -> dict[str, Any]:
        if not self._transcription:
            raise ValueError("no transcription was started in this meeting: call start_transcription() first")
        return {"roomSessionId": self.session_id, "transcriptionId": self._transcription}

    def _build(self, kind: type[W], data: dict[str, Any], at: float | None) -> W:
        built = webhook(
            TYPES[kind],
            room=self.room,
            subdomain=self.subdomain,
            id=self._make_id(),
            created_at=self._time(at),
            data=data,
        )
        assert isinstance(built, kind)  # noqa: S101 - the types agree with their classes
        return built

    def _time(self, at: float | None) -> datetime:
        return self._now() if at is None else self.begin + timedelta(seconds=at)


class Whereby:
    """Build what Whereby sends; the fixture `whereby` of the pytest plugin.

    >>> meeting = whereby.meeting("/visit-1")
    >>> await t.deliver(meeting.join("host"))
    >>> await t.deliver(whereby.webhook("assistant.requested", room="/visit-1"))
    """

    meeting = Meeting
    webhook = staticmethod(webhook)


class LiveMeeting:
    """Deliver the webhooks of a meeting as they happen; made by `t.meeting()`. Each call returns the decision.

    The calls are those of Meeting, without `at`: everything happens now, by the clock of the test.
    """

    def __init__(self, meeting: Meeting, deliver: Callable[[WebhookBase], Awaitable[Decision]]) -> None:
        self._meeting = meeting
        self._deliver = deliver

    @property
    def room(self) -> str:
        """The room's name."""
        return self._meeting.room

    @property
    def session_id(self) -> str | None:
        """The id of the meeting's session."""
        return self._meeting.session_id

    @property
    def present(self) -> tuple[Participant, ...]:
        """Everybody in the meeting, in the order in which they joined."""
        return self._meeting.present

    async def join(
        self,
        role: str = "visitor",
        *,
        name: str | None = None,
        data: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Decision:
        """Let somebody join; bots join by their role, such as `assistant`."""
        return await self._deliver(self._meeting.join(role, name=name, data=data, **fields))

    async def leave(self, who: str | None = None) -> Decision:
        """Let somebody leave, by name or role; by default whoever joined last. Raises ValueError if nobody is that."""
        return await self._deliver(self._meeting.leave(who))

    async def knock(self, name: str | None = None, *, data: Mapping[str, Any] | None = None, **fields: Any) -> Decision:
        """Let a visitor knock at a locked room."""
        return await self._deliver(self._meeting.knock(name, data=data, **fields))

    async def cancel_knock(self, who: str | None = None) -> Decision:
        """Let somebody who knocks go away, by name; by default whoever knocked last. Raises ValueError if nobody is."""
        return await self._deliver(self._meeting.cancel_knock(who))

    async def start(self) -> Decision:
        """Start the session."""
        return await self._deliver(self._meeting.start())

    async def end(self) -> Decision:
        """End the session, with everybody in it."""
        return await self._deliver(self._meeting.end())

    async def request_assistant(self) -> Decision:
        """Let somebody invite an assistant."""
        return await self._deliver(self._meeting.request_assistant())

    async def start_transcription(self) -> Decision:
        """Start a live transcription."""
        return await self._deliver(self._meeting.start_transcription())

    async def finish_transcription(self) -> Decision:
        """Finish the transcription that was started last."""
        return await self._deliver(self._meeting.finish_transcription())

    async def fail_transcription(self, error: str = "The audio could not be read") -> Decision:
        """Let the transcription that was started last fail."""
        return await self._deliver(self._meeting.fail_transcription(error))

    async def finish_recording(self) -> Decision:
        """Finish a recording."""
        return await self._deliver(self._meeting.finish_recording())


def hash_of(text: str) -> int:
    """Return a number for a text, the same one in every process."""
    return uuid.uuid5(uuid.NAMESPACE_OID, text).int


def _find(participants: list[Participant], who: str | None, where: str) -> Participant:
    found = [one for one in participants if who is None or who == one.name]
    found = found or [one for one in participants if who == one.role]
    if not found:
        there = ", ".join(f"{one.name} ({one.role})" for one in participants) or "nobody"
        raise ValueError(f"nobody called {who!r}, nor with that role, is {where}: there is {there}")
    return found[-1]
