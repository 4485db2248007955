"""Where webhooks and decisions live: the protocol that every store speaks, and its values."""

from whereby_trigger.store.protocol import Store
from whereby_trigger.store.records import Added, Arrival, Decision, Pending, Query, Record
from whereby_trigger.store.states import FIRST_STATES, TRANSITIONS, State

__all__ = [
    "FIRST_STATES",
    "TRANSITIONS",
    "Added",
    "Arrival",
    "Decision",
    "Pending",
    "Query",
    "Record",
    "State",
    "Store",
]
