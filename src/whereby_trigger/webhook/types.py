"""The webhooks Whereby sends, one class per type, and `UnknownWebhook` for the types it adds later.

`webhook.type` narrows the union `Webhook`; so does `isinstance`. Webhooks are immutable.

The `data` has the names of the reference, in snake_case. What it calls a string is `str` (`""` if Whereby left it out),
what it calls nullable or optional is `| None`, numbers are `int | None`. The repr of `data` shows the room only: names,
`metadata` and `external_id` are personal data and must not reach a log.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from msgspec import Struct

RoleName = Literal[
    "owner",
    "member",
    "host",
    "visitor",
    "granted_visitor",
    "viewer",
    "granted_viewer",
    "recorder",
    "streamer",
    "captioner",
    "assistant",
]

BOT_ROLES: frozenset[str] = frozenset({"recorder", "streamer", "captioner", "assistant"})

if TYPE_CHECKING:
    _RoleNameOrNewer = RoleName
else:
    # Whereby may add roles: the type names the known ones, the decoder takes any string.
    _RoleNameOrNewer = str

_LEFT_OUT = cast(RoleName, "")


class WebhookData(Struct, frozen=True, kw_only=True, rename="camel"):
    """What every webhook's `data` has: the room's name, `""` if Whereby left it out."""

    room_name: str = ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(room_name={self.room_name!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("room_name", self.room_name)]


class RoomData(WebhookData, frozen=True, kw_only=True, rename="camel"):
    """The `data` of `room.session.*` and `assistant.requested`.

    `subdomain` is read from `subdoman`, the type reference's spelling, if `subdomain` is absent.
    Source: Whereby docs, Tracking room events with Webhooks.
    """

    meeting_id: str | None = None
    room_session_id: str | None = None
    subdomain: str = ""


class ClientData(RoomData, frozen=True, kw_only=True, rename="camel"):
    """The `data` of `room.client.knocked` and `room.client.knockCancelled`: a room and who is at its door.

    Source: Whereby docs, Tracking room events with Webhooks.
    """

    display_name: str = ""
    participant_id: str = ""
    metadata: str | None = None
    external_id: str | None = None


class ClientCountData(ClientData, frozen=True, kw_only=True, rename="camel"):
    """The `data` of `room.client.joined` and `room.client.left`: who came or went, and who is there after it.

    `num_clients` counts bots too; roles that are absent from `num_clients_by_role_name` are 0.
    Source: Whereby docs, Tracking room events with Webhooks.
    """

    role_name: _RoleNameOrNewer = _LEFT_OUT
    num_clients: int | None = None
    num_clients_by_role_name: Mapping[str, int] = {}
    is_dial_in: bool | None = None

    @property
    def humans(self) -> int | None:
        """The number of people in the room after the event, without the bot roles.

        None if Whereby sent no counts by role, unless it said that the room is empty.
        """
        present = self.present
        return None if present is None else present[0]

    @property
    def bots(self) -> int | None:
        """The number of bots in the room after the event, assistants included; None as for `humans`."""
        present = self.present
        return None if present is None else present[1]

    @property
    def present(self) -> tuple[int, int] | None:
        """The numbers of people and of bots in the room after the event, or None as for `humans`.

        None also if a count is below 0.
        """
        if not self.num_clients_by_role_name:
            return (0, 0) if self.num_clients == 0 else None
        humans = bots = 0
        for role, count in self.num_clients_by_role_name.items():
            if count < 0:
                return None
            if role in BOT_ROLES:
                bots += count
            else:
                humans += count
        return humans, bots


class TranscriptionData(WebhookData, frozen=True, kw_only=True, rename="camel"):
    """The `data` of `transcription.started`.

    `type` is `LIVE_TRANSCRIPTION` or `RECORDING_TRANSCRIPTION`; `status` is `in_progress`, `ready` or
    `failed`.
    Source: Whereby docs, Tracking room events with Webhooks.
    """

    room_session_id: str | None = None
    transcription_id: str = ""
    type: str = ""
    status: str = ""


class TranscriptionFinishedData(TranscriptionData, frozen=True, kw_only=True, rename="camel"):
    """The `data` of `transcription.finished`.

    `storage_type` is `WHEREBY_HOSTED` or `SELF_HOSTED`; only transcriptions of a recording have a
    `recording_id`.
    Source: Whereby docs, Tracking room events with Webhooks.
    """

    filename: str = ""
    storage_type: str = ""
    duration_in_seconds: int | None = None
    recording_id: str | None = None


class TranscriptionFailedData(TranscriptionData, frozen=True, kw_only=True, rename="camel"):
    """The `data` of `transcription.failed`. Source: Whereby docs, Tracking room events with Webhooks."""

    error: str = ""


class RecordingData(WebhookData, frozen=True, kw_only=True, rename="camel"):
    """The `data` of `recording.finished`; `status` is `completed`.

    Source: Whereby docs, Tracking room events with Webhooks.
    """

    filename: str = ""
    recording_id: str = ""
    status: str = ""


__all__ = [
    "BOT_ROLES",
    "ROOM_TYPES",
    "WEBHOOK_CLASSES",
    "WEBHOOK_TYPES",
    "AssistantRequested",
    "KnownWebhook",
    "RecordingFinished",
    "RoleName",
    "RoomClientJoined",
    "RoomClientKnockCancelled",
    "RoomClientKnocked",
    "RoomClientLeft",
    "RoomSessionEnded",
    "RoomSessionStarted",
    "RoomWebhook",
    "TranscriptionFailed",
    "TranscriptionFinished",
    "TranscriptionStarted",
    "UnknownWebhook",
    "Webhook",
    "WebhookBase",
    "WebhookType",
    "data_class",
    "is_human",
]

WebhookType = Literal[
    "room.client.joined",
    "room.client.left",
    "room.client.knocked",
    "room.client.knockCancelled",
    "room.session.started",
    "room.session.ended",
    "transcription.started",
    "transcription.finished",
    "transcription.failed",
    "recording.finished",
    "assistant.requested",
]

if TYPE_CHECKING:
    # With `str` here a type checker could not narrow the union by `webhook.type` at all.
    _AnyOtherType = Literal["(any other type)"]
else:
    _AnyOtherType = str


class WebhookBase(Struct, frozen=True, kw_only=True):
    """What surrounds the `data` of every webhook. Source: Whereby's Assistant SDK reference, WherebyWebhookBase.

    `created_at` is an aware datetime in UTC, None if Whereby left it out; `raw` is the body exactly as
    received, `b""` if the webhook was built by hand. The repr leaves out what may hold personal data.
    """

    id: str
    api_version: str = ""
    created_at: datetime | None = None
    data: Any
    raw: bytes = b""

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({shown})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("id", self.id), ("room_name", self.data.room_name)]


class RoomClientJoined(WebhookBase, frozen=True, kw_only=True):
    """A user joined a room. The counts include the newcomer."""

    type: Literal["room.client.joined"] = "room.client.joined"
    data: ClientCountData = ClientCountData()


class RoomClientLeft(WebhookBase, frozen=True, kw_only=True):
    """A user left a room, by the leave button or by closing the tab. The counts are those after it."""

    type: Literal["room.client.left"] = "room.client.left"
    data: ClientCountData = ClientCountData()


class RoomClientKnocked(WebhookBase, frozen=True, kw_only=True):
    """A visitor knocks from the waiting room."""

    type: Literal["room.client.knocked"] = "room.client.knocked"
    data: ClientData = ClientData()


class RoomClientKnockCancelled(WebhookBase, frozen=True, kw_only=True):
    """A visitor stopped knocking or lost the connection."""

    type: Literal["room.client.knockCancelled"] = "room.client.knockCancelled"
    data: ClientData = ClientData()


class RoomSessionStarted(WebhookBase, frozen=True, kw_only=True):
    """At least two users are in the room."""

    type: Literal["room.session.started"] = "room.session.started"
    data: RoomData = RoomData()


class RoomSessionEnded(WebhookBase, frozen=True, kw_only=True):
    """Fewer than two users have been in the room for some time; how long is Whereby's heuristic."""

    type: Literal["room.session.ended"] = "room.session.ended"
    data: RoomData = RoomData()


class TranscriptionStarted(WebhookBase, frozen=True, kw_only=True):
    """A transcription is in progress."""

    type: Literal["transcription.started"] = "transcription.started"
    data: TranscriptionData = TranscriptionData()


class TranscriptionFinished(WebhookBase, frozen=True, kw_only=True):
    """A transcription is ready."""

    type: Literal["transcription.finished"] = "transcription.finished"
    data: TranscriptionFinishedData = TranscriptionFinishedData()


class TranscriptionFailed(WebhookBase, frozen=True, kw_only=True):
    """A transcription failed; `data.error` says why."""

    type: Literal["transcription.failed"] = "transcription.failed"
    data: TranscriptionFailedData = TranscriptionFailedData()


class RecordingFinished(WebhookBase, frozen=True, kw_only=True):
    """A recording is complete."""

    type: Literal["recording.finished"] = "recording.finished"
    data: RecordingData = RecordingData()


class AssistantRequested(WebhookBase, frozen=True, kw_only=True):
    """A host pressed Invite for an assistant in the room."""

    type: Literal["assistant.requested"] = "assistant.requested"
    data: RoomData = RoomData()


class UnknownWebhook(WebhookBase, frozen=True, kw_only=True):
    """A webhook of a type that this version does not know.

    At run time `type` is any string: compare `str(webhook.type)`. `data` is the received object, with Whereby's names.
    """

    type: _AnyOtherType
    data: Mapping[str, Any] = {}

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("id", self.id), ("type", self.type)]


RoomWebhook = (
    RoomClientJoined
    | RoomClientLeft
    | RoomClientKnocked
    | RoomClientKnockCancelled
    | RoomSessionStarted
    | RoomSessionEnded
    | AssistantRequested
)
KnownWebhook = RoomWebhook | TranscriptionStarted | TranscriptionFinished | TranscriptionFailed | RecordingFinished
Webhook = KnownWebhook | UnknownWebhook

WEBHOOK_TYPES: tuple[WebhookType, ...] = get_args(WebhookType)
WEBHOOK_CLASSES: Mapping[str, type[KnownWebhook]] = {cls(id="").type: cls for cls in get_args(KnownWebhook)}
ROOM_TYPES: tuple[WebhookType, ...] = tuple(cls(id="").type for cls in get_args(RoomWebhook))


def data_class(type: WebhookType) -> type[WebhookData]:
    """Return the class of a webhook type's `data`."""
    return WEBHOOK_CLASSES[type](id="").data.__class__


def is_human(webhook: Webhook) -> bool:
    """Return True if a webhook is about a person: False exactly if it carries a bot's role.

    Bots are the roles in `BOT_ROLES`: an assistant's own join carries one. Source: Whereby docs, Roles.
    """
    if isinstance(webhook, UnknownWebhook):
        role = webhook.data.get("roleName")
    else:
        role = getattr(webhook.data, "role_name", None)
    return not isinstance(role, str) or role not in BOT_ROLES
