"""Tools to test your triggers: build webhooks, deliver them, and read the decisions."""

from whereby_trigger.store import Decision, Record
from whereby_trigger.testing.builder import webhook
from whereby_trigger.testing.in_process import AssistantStart, TestingTrigger
from whereby_trigger.testing.meeting import LiveMeeting, Meeting, Whereby
from whereby_trigger.webhook import sign

__all__ = [
    "AssistantStart",
    "Decision",
    "LiveMeeting",
    "Meeting",
    "Record",
    "TestingTrigger",
    "Whereby",
    "sign",
    "webhook",
]
