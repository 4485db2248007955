"""Mistakes that a user's program may contain, and the words by which a strict type checker must report them."""

from dataclasses import dataclass

HEAD = """\
from collections.abc import Iterator
from whereby_trigger import (
    ASSISTANT_EVENT_FAILED, TRIGGER_EVENT_SUCCESS, AssistantEvent, Hold, Presence, RecordingFinished, RoomClientJoined,
    RoomSessionStarted, Session, Trigger, TriggerSuccess, Webhook, is_human,
)
from whereby_trigger.testing import webhook as build

trigger = Trigger()

"""


@dataclass(frozen=True)
class Mistake:
    """Pair a few wrong lines with a part of the message that they must get."""

    name: str
    lines: str
    message: str


UNSEEN = 'Trigger(webhook_triggers={"room.client.joined": lambda webhook: webhook.data.typo == 1})'
"""A mistake that mypy does not see, as docs/reference.md says: a lambda's argument in that dict has no type."""

MISTAKES = (
    Mistake(
        "a_predicate_of_another_type",
        """
@trigger.when("room.client.joined")
def wanted(webhook: RoomSessionStarted) -> bool:
    return True
""",
        'cannot be "Callable[[RoomSessionStarted], bool]"',
    ),
    Mistake(
        "a_hold_that_is_a_text",
        """
@trigger.when("room.client.joined", hold="30")
def wanted(webhook: RoomClientJoined) -> bool:
    return True
""",
        'No overload variant of "__call__" of "When" matches',
    ),
    Mistake(
        "a_held_predicate_of_another_type",
        """
def wanted(webhook: RoomSessionStarted) -> bool:
    return True

Trigger(webhook_triggers={"room.client.joined": Hold(wanted, 30)})
""",
        'incompatible type "Callable[[RoomSessionStarted], bool]"',
    ),
    Mistake(
        "a_held_predicate_that_returns_a_text",
        """
def wanted(webhook: RoomClientJoined) -> str:
    return webhook.type

Trigger(webhook_triggers={"room.client.joined": Hold(wanted, 30)})
""",
        'incompatible type "Callable[[RoomClientJoined], str]"',
    ),
    Mistake(
        "a_predicate_without_return",
        """
@trigger.when("room.client.joined")
def wanted(webhook: RoomClientJoined) -> None:
    is_human(webhook)
""",
        'cannot be "Callable[[RoomClientJoined], None]"',
    ),
    Mistake(
        "a_predicate_that_returns_a_text",
        """
@trigger.when("room.client.joined")
def wanted(webhook: RoomClientJoined) -> str:
    return webhook.data.role_name
""",
        'cannot be "Callable[[RoomClientJoined], str]"',
    ),
    Mistake(
        "an_async_predicate_that_returns_a_text",
        """
@trigger.when("room.client.joined", "room.client.left")
async def wanted(webhook: Webhook) -> str:
    return webhook.type
""",
        "Coroutine[Any, Any, str]",
    ),
    Mistake(
        "a_predicate_of_two_arguments",
        """
@trigger.when("room.client.joined")
def wanted(webhook: RoomClientJoined, more: int) -> bool:
    return True
""",
        'cannot be "Callable[[RoomClientJoined, int], bool]"',
    ),
    Mistake(
        "a_predicate_that_takes_presence_first",
        """
@trigger.when("room.client.joined")
def wanted(presence: Presence, webhook: RoomClientJoined) -> bool:
    return True
""",
        'cannot be "Callable[[Presence, RoomClientJoined], bool]"',
    ),
    Mistake(
        "a_predicate_that_compares_what_may_be_unknown",
        """
@trigger.when("room.client.joined")
def wanted(webhook: RoomClientJoined, presence: Presence) -> bool:
    return presence.humans >= 2
""",
        'Unsupported operand types for <= ("int" and "None")',
    ),
    Mistake(
        "a_misspelt_field_of_presence",
        """
@trigger.when("room.client.joined")
def wanted(webhook: RoomClientJoined, presence: Presence) -> bool:
    return presence.people == 2
""",
        '"Presence" has no attribute "people"',
    ),
    Mistake(
        "a_dict_with_a_predicate_of_another_type_and_presence",
        """
def wanted(webhook: RoomSessionStarted, presence: Presence) -> bool:
    return True

Trigger(webhook_triggers={"room.client.joined": wanted})
""",
        'TypedDict item "room.client.joined"',
    ),
    Mistake(
        "a_change_to_who_is_in_a_session",
        """
@trigger.assistant
async def scribe(session: Session) -> None:
    session.presence.humans = 2
""",
        'Property "humans" defined in "Presence" is read-only',
    ),
    Mistake(
        "a_misspelt_field",
        """
@trigger.when("room.client.joined")
def wanted(webhook: RoomClientJoined) -> bool:
    return webhook.data.numClients == 1
""",
        '"ClientCountData" has no attribute "numClients"',
    ),
    Mistake(
        "a_field_that_the_type_lacks",
        """
@trigger.when("room.session.started")
def wanted(webhook: RoomSessionStarted) -> bool:
    return webhook.data.role_name == "host"
""",
        '"RoomData" has no attribute "role_name"',
    ),
    Mistake(
        "a_role_that_there_is_not",
        """
@trigger.when("room.client.joined")
def wanted(webhook: RoomClientJoined) -> bool:
    return webhook.data.role_name == "guest"
""",
        "Non-overlapping equality check",
    ),
    Mistake("a_misspelt_type_for_when", '@trigger.when("room.client.join")\ndef wanted() -> bool: ...', "No overload"),
    Mistake("a_type_without_a_room", '@trigger.when("recording.finished")\ndef wanted() -> bool: ...', "No overload"),
    Mistake(
        "a_dict_with_a_misspelt_type",
        'Trigger(webhook_triggers={"room.client.join": lambda: True})',
        'Extra key "room.client.join"',
    ),
    Mistake(
        "a_dict_with_a_type_without_a_room",
        'Trigger(webhook_triggers={"recording.finished": lambda: True})',
        'Extra key "recording.finished"',
    ),
    Mistake(
        "a_dict_with_a_predicate_of_another_type",
        """
def wanted(webhook: RoomSessionStarted) -> bool:
    return True

Trigger(webhook_triggers={"room.client.joined": wanted})
""",
        'TypedDict item "room.client.joined"',
    ),
    Mistake(
        "a_dict_with_a_predicate_that_returns_nothing",
        'Trigger(webhook_triggers={"room.client.joined": lambda webhook: print(webhook)})',
        'expression has type "Callable[[Any], None]"',
    ),
    Mistake(
        "a_listener_of_another_event",
        """
@trigger.on(TRIGGER_EVENT_SUCCESS)
def told(webhook: RoomClientJoined) -> None: ...
""",
        'cannot be "Callable[[RoomClientJoined], None]"',
    ),
    Mistake(
        "a_listener_of_another_event_in_a_call",
        """
def told(success: TriggerSuccess) -> None: ...

trigger.on("recording.finished", told)
""",
        'incompatible type "Callable[[TriggerSuccess], None]"',
    ),
    Mistake(
        "a_misspelt_field_of_the_success",
        "trigger.on(TRIGGER_EVENT_SUCCESS, lambda success: print(success.roomUrl))",
        'has no attribute "roomUrl"',
    ),
    Mistake(
        "a_listener_of_an_assistants_event_that_takes_a_success",
        """
@trigger.on(ASSISTANT_EVENT_FAILED)
def told(success: TriggerSuccess) -> None: ...
""",
        'cannot be "Callable[[TriggerSuccess], None]"',
    ),
    Mistake(
        "a_listener_of_the_success_that_takes_an_assistants_event",
        """
def told(event: AssistantEvent) -> None: ...

trigger.on(TRIGGER_EVENT_SUCCESS, told)
""",
        'incompatible type "Callable[[AssistantEvent], None]"',
    ),
    Mistake(
        "a_misspelt_field_of_an_assistants_event",
        "trigger.on(ASSISTANT_EVENT_FAILED, lambda event: print(event.roomUrl))",
        'has no attribute "roomUrl"',
    ),
    Mistake(
        "another_word_for_stdin",
        'trigger.assistant_command(["node", "assistant.mjs"], stdin="lines")',
        "incompatible type",
    ),
    Mistake(
        "a_field_of_another_type_after_narrowing",
        """
def told(webhook: Webhook) -> str:
    return webhook.data.display_name if webhook.type == "recording.finished" else ""
""",
        '"RecordingData" has no attribute "display_name"',
    ),
    Mistake(
        "a_change_to_a_webhook",
        """
def told(webhook: RecordingFinished) -> None:
    webhook.data.filename = "other"
""",
        'Property "filename" defined in "RecordingData" is read-only',
    ),
    Mistake(
        "an_assistant_that_takes_a_number",
        """
@trigger.assistant
async def scribe(session: int) -> None: ...
""",
        'cannot be "Callable[[int], Coroutine[Any, Any, None]]"',
    ),
    Mistake(
        "an_assistant_for_bots_too_that_takes_a_success",
        """
@trigger.assistant(bots=True)
async def scribe(success: TriggerSuccess) -> None: ...
""",
        'cannot be "Callable[[TriggerSuccess], Coroutine[Any, Any, None]]"',
    ),
    Mistake(
        "an_assistant_that_takes_nothing",
        """
@trigger.assistant
async def scribe() -> None: ...
""",
        'cannot be "Callable[[], Coroutine[Any, Any, None]]"',
    ),
    Mistake(
        "an_assistant_that_is_not_async",
        """
@trigger.assistant
def scribe(session: Session) -> None: ...
""",
        'cannot be "Callable[[Session], None]"',
    ),
    Mistake(
        "a_bound_as_text",
        'trigger.assistant_command(["node", "assistant.mjs"], leave_when_empty="60")',
        'Argument "leave_when_empty" to "assistant_command" of "Trigger" has incompatible type "str"',
    ),
    Mistake("a_port_as_text", 'Trigger(port="8080")', 'Argument "port" to "Trigger" has incompatible type "str"'),
    Mistake("a_secret_of_bytes", 'Trigger(secret=b"secret")', 'Argument "secret" to "Trigger" has incompatible type'),
    Mistake("a_setting_that_there_is_not", "Trigger(prot=8080)", 'Unexpected keyword argument "prot"'),
    Mistake("settings_by_position", "Trigger({})", "Too many positional arguments"),
    Mistake(
        "a_forgotten_await",
        """
async def main() -> None:
    trigger.serve()
""",
        "must be used",
    ),
    Mistake(
        "a_built_webhook_of_another_type",
        'joined: RoomClientJoined = build("room.client.left")',
        "Incompatible types in assignment",
    ),
)
