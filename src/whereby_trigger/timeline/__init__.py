"""What happened in a room: webhooks, decisions, assistants, refusals and replicas, meeting by meeting.

`of_room` reads the store; all else is pure. `rooms show` and the inspector render what it returns.
"""

from whereby_trigger.timeline.blocks import Found
from whereby_trigger.timeline.entries import Entry, Kind, action_in_words, people, run_in_words
from whereby_trigger.timeline.meetings import MeetingHistory, Timeline, as_object, assemble, of_room, room_keys

__all__ = [
    "Entry",
    "Found",
    "Kind",
    "MeetingHistory",
    "Timeline",
    "action_in_words",
    "as_object",
    "assemble",
    "of_room",
    "people",
    "room_keys",
    "run_in_words",
]
