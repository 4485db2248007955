"""The `data` of each webhook type, in the names of Whereby's reference put into snake_case.

What the reference calls a string is `str` (`""` if Whereby left it out), what it calls nullable or
optional is `| None`, numbers are `int | None`. Values are immutable, and their repr shows the room only:
names, `metadata` and `external_id` are personal data and must not reach a log.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

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
        if min(self.num_clients_by_role_name.values()) < 0:
            return None
        for role, count in self.num_clients_by_role_name.items():
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
