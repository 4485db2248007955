"""The stage that decides: asks the predicate, calls the listeners, commits the decision."""

from whereby_trigger.decide.decider import Decider
from whereby_trigger.decide.dispatcher import Backlog, Dispatcher, page_for
from whereby_trigger.decide.emitter import TRIGGER_EVENT_SUCCESS, Announcer, Emitter, On, TriggerSuccess
from whereby_trigger.decide.pending import Holds, HoldWatch, PendingWebhook
from whereby_trigger.decide.predicates import Hold, Predicates, WebhookTriggers, When, did_you_mean
from whereby_trigger.decide.user_code import UserCode

__all__ = [
    "TRIGGER_EVENT_SUCCESS",
    "Announcer",
    "Backlog",
    "Decider",
    "Dispatcher",
    "Emitter",
    "Hold",
    "HoldWatch",
    "Holds",
    "On",
    "PendingWebhook",
    "Predicates",
    "TriggerSuccess",
    "UserCode",
    "WebhookTriggers",
    "When",
    "did_you_mean",
    "page_for",
]
