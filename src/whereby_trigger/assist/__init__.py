"""Run one assistant in each room that asks for one, for as long as the replica holds its lease."""

from whereby_trigger.assist.assistant import (
    ASSISTANT_EVENT_ENDED,
    ASSISTANT_EVENT_FAILED,
    ASSISTANT_EVENT_STARTED,
    LEAVE_WHEN_EMPTY,
    MAX_DURATION,
    Announce,
    Assistant,
    AssistantEvent,
    AssistantFunction,
    CommandAssistant,
    CoroutineAssistant,
    Duration,
    Registered,
    Stdin,
    announce_nothing,
    bounds_of,
    command_assistant,
    coroutine_assistant,
)
from whereby_trigger.assist.runners import launcher
from whereby_trigger.assist.session import Ended, Session
from whereby_trigger.assist.supervisor import Claims, NoClaims, Supervisor, launch_nothing, request_for

__all__ = [
    "ASSISTANT_EVENT_ENDED",
    "ASSISTANT_EVENT_FAILED",
    "ASSISTANT_EVENT_STARTED",
    "LEAVE_WHEN_EMPTY",
    "MAX_DURATION",
    "Announce",
    "Assistant",
    "AssistantEvent",
    "AssistantFunction",
    "Claims",
    "CommandAssistant",
    "CoroutineAssistant",
    "Duration",
    "Ended",
    "NoClaims",
    "Registered",
    "Session",
    "Stdin",
    "Supervisor",
    "announce_nothing",
    "bounds_of",
    "command_assistant",
    "coroutine_assistant",
    "launch_nothing",
    "launcher",
    "request_for",
]
