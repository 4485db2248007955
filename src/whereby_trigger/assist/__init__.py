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
from whereby_trigger.assist.claims import Claims, request_for
from whereby_trigger.assist.launch import launcher
from whereby_trigger.assist.session import Ended, Session
from whereby_trigger.assist.supervisor import Supervisor
from whereby_trigger.assist.tenure import Tenure
from whereby_trigger.assist.watchdog import Watchdog

__all__ = [
    "Assistant",
    "AssistantFunction",
    "Claims",
    "CommandAssistant",
    "CoroutineAssistant",
    "Ended",
    "Registered",
    "Session",
    "Supervisor",
    "Tenure",
    "Watchdog",
    "command_assistant",
    "coroutine_assistant",
    "launcher",
    "request_for",
]
