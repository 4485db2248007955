"""The stages from the decider to the backlog, built by a test without the trigger around them."""

from whereby_trigger.assist import NoClaims, Supervisor, launch_nothing
from whereby_trigger.clock import MACHINE, Clock
from whereby_trigger.decide import Backlog, Decider, Dispatcher, Emitter, Holds, Predicates, UserCode
from whereby_trigger.deliveries import DeliveryLog
from whereby_trigger.store import Store, Unread


def decider_for(store: Store, predicates: Predicates, emitter: Emitter, user_code: UserCode, max_age: float) -> Decider:
    """Build the decider of a program without an assistant."""
    claims = NoClaims(store, Supervisor(store, launch_nothing, 0), bots=False)
    return Decider(store, predicates, emitter, user_code, claims, max_age=max_age)


def dispatcher_for(store: Store, decider: Decider, unread: Unread) -> Dispatcher:
    return Dispatcher(store, Supervisor(store, launch_nothing, 0), decider, DeliveryLog(), unread, Holds())


def backlog_for(store: Store, dispatcher: Dispatcher, unread: Unread, clock: Clock = MACHINE) -> Backlog:
    return Backlog(store, Supervisor(store, launch_nothing, 0), dispatcher, unread, max_age=60, clock=clock)
