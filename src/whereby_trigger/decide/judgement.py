"""What a verdict makes of a webhook: its state and the reason. Pure: the decider reads these rules, and a backtest."""

from msgspec import Struct

from whereby_trigger.decide.holds import Seen, held_in_words, in_seconds, seen
from whereby_trigger.decide.predicates import Predicate, Verdict
from whereby_trigger.store import State
from whereby_trigger.webhook import RoomIdentity, Webhook, why_no_room

DIED = "the process ended while it was in user code"
"""How the reason begins of a webhook that was blamed too often for the end of its process."""


class Judgement(Struct, frozen=True):
    """Hold a state and its reason, before they become a decision; `short` as in a verdict.

    If the state is `held`, it is so for `hold` seconds in all, and the predicate was asked with the presence `seen`.
    """

    state: State
    reason: str
    asked: int = 0
    error: str | None = None
    short: str | None = None
    hold: float = 0.0
    seen: Seen = (None, None)


def too_old(max_age: float, *, was_due: bool) -> Judgement:
    """Return what becomes of a webhook older than `max_age`: its age counts from when its hold was due, if any."""
    if was_due:
        return Judgement(State.SKIPPED, f"due longer than max_age ({max_age:g} s) ago")
    return Judgement(State.SKIPPED, f"older than max_age ({max_age:g} s) when it was first decided")


def without_predicate(type: str, *, listened: bool) -> Judgement:
    """Return what becomes of a webhook of a type that has no predicate; `listened` is True if it has listeners."""
    if listened:
        return Judgement(State.NOTIFIED, "no predicate for its type; its listeners were called")
    return Judgement(State.UNHANDLED, f"no predicate and no listener for {type}")


def judge(
    predicate: Predicate,
    verdict: Verdict,
    webhook: Webhook,
    room: RoomIdentity | None,
    subdomain: str | None,
    *,
    held_for: float | None,
    is_due: bool,
) -> Judgement:
    """Return what a verdict makes of a webhook. `subdomain` is the setting, for the reasons.

    Its hold began `held_for` seconds ago, or has not begun if that is None; `is_due` is True if the predicate was asked
    when the hold was over.
    """
    if verdict.answer is None:
        return Judgement(State.FAILED, verdict.reason, verdict.asked, verdict.error, verdict.short)
    if not verdict.answer:
        no_longer = "" if held_for is None else f", no longer true after {in_seconds(held_for)}"
        return Judgement(State.SKIPPED, f"{verdict.reason}{no_longer}", verdict.asked)
    if room is None:
        return Judgement(State.FAILED, f"{verdict.reason}, but {why_no_room(webhook, subdomain)}", verdict.asked)
    if predicate.hold is None:
        return Judgement(State.FIRED, verdict.reason, verdict.asked)
    if not is_due:
        reason = held_in_words(predicate.hold, verdict.presence)
        return Judgement(State.HELD, reason, verdict.asked, hold=predicate.hold, seen=seen(verdict.presence))
    return Judgement(State.FIRED, f"{verdict.reason} for {predicate.hold:g} s", verdict.asked)
