"""Run one assistant in each room that asks for one, for as long as the replica holds its lease."""

from whereby_trigger.assist.assistant import (
    LEAVE_WHEN_EMPTY,
    MAX_DURATION,
    Assistant,
    AssistantFunction,
    CommandAssistant,
    CoroutineAssistant,
    Duration,
    Registered,
    Stdin,
    bounds_of,
    command_assistant,
    coroutine_assistant,
)
from whereby_trigger.assist.runners import launcher
from whereby_trigger.assist.session import Ended, Session
from whereby_trigger.assist.supervisor import Claims, NoClaims, Supervisor, launch_nothing, request_for

__all__ = [
    "LEAVE_WHEN_EMPTY",
    "MAX_DURATION",
    "Assistant",
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
    "bounds_of",
    "command_assistant",
    "coroutine_assistant",
    "launch_nothing",
    "launcher",
    "request_for",
]
