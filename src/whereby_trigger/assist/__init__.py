"""The stage that assists: one assistant in each room that asks for one, kept by the replica's lease."""

from whereby_trigger.assist.assistant import (
    Assistant,
    AssistantFunction,
    CommandAssistant,
    CoroutineAssistant,
    Registered,
    command_assistant,
    coroutine_assistant,
)
from whereby_trigger.assist.lease import Fence
from whereby_trigger.assist.runners import launcher
from whereby_trigger.assist.session import Ended, Session
from whereby_trigger.assist.supervisor import Claims, Supervisor, request_for
from whereby_trigger.process import Watchdog

__all__ = [
    "Assistant",
    "AssistantFunction",
    "Claims",
    "CommandAssistant",
    "CoroutineAssistant",
    "Ended",
    "Fence",
    "Registered",
    "Session",
    "Supervisor",
    "Watchdog",
    "command_assistant",
    "coroutine_assistant",
    "launcher",
    "request_for",
]
