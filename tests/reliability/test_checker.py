"""The checker itself: every rule is broken once on purpose, and the checker finds it and nothing else."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from reliability.checker import Emission, Evidence, Rule, check, in_words
from reliability.corpus import Item
from whereby_trigger.store import Record, State

ROOM = "/visit-1"


def item(id: str, state: State = State.FIRED) -> Item:
    return Item(id, "room.client.joined", ROOM, b"{}", state)


def record(id: str, state: State = State.FIRED, deliveries: int = 1) -> Record:
    return Record(
        id=id,
        type="room.client.joined",
        room=ROOM,
        state=state,
        reason="predicate people returned True",
        attempts=1,
        deliveries=deliveries,
        received_at=1.0,
        decided_at=10.0,
        owner="replica",
        errors=(),
        body=b"{}",
    )


GOOD = Evidence(
    items={id: item(id) for id in ("a", "b")} | {"bot": item("bot", State.SKIPPED), "unsent": item("unsent")},
    sends=Counter({"a": 1, "b": 2, "bot": 1}),
    acknowledged=Counter({"a": 1, "b": 2}),
    records=[record("a"), record("b", deliveries=2), record("bot", State.SKIPPED)],
    emissions=[Emission(1, "a", 1, 2.0), Emission(1, "b", 1, 3.0), Emission(2, "b", 2, 5.0)],
)


def with_record(id: str, **fields: Any) -> list[Record]:
    return [msgspec.structs.replace(row, **fields) if row.id == id else row for row in GOOD.records]


BROKEN: dict[Rule, Callable[[], dict[str, Any]]] = {
    Rule.LOST: lambda: {"acknowledged": GOOD.acknowledged + Counter(["unsent"])},
    Rule.INVENTED: lambda: {
        "records": [*GOOD.records, record("alien", State.SKIPPED)],
        "sends": GOOD.sends + Counter(["alien"]),
    },
    Rule.DOUBLED: lambda: {"records": [*GOOD.records, record("bot", State.SKIPPED)]},
    Rule.UNDECIDED: lambda: {"records": with_record("bot", state=State.PENDING)},
    Rule.MISJUDGED: lambda: {"records": with_record("bot", state=State.UNHANDLED)},
    Rule.MISCOUNTED: lambda: {"records": with_record("b", deliveries=1)},
    Rule.UNHEARD: lambda: {"emissions": GOOD.emissions[1:]},
    Rule.HEARD_WRONGLY: lambda: {"emissions": [*GOOD.emissions, Emission(2, "bot", 1, 6.0)]},
    Rule.EMITTED_TWICE: lambda: {"emissions": [*GOOD.emissions, Emission(2, "b", 3, 6.0)]},
    Rule.UNCOUNTED: lambda: {"emissions": [*GOOD.emissions, Emission(3, "b", 2, 6.0)]},
    Rule.DECIDED_TWICE: lambda: {"emissions": [*GOOD.emissions, Emission(3, "b", 3, 11.0)]},
    Rule.OVERTAKEN: lambda: {"emissions": [GOOD.emissions[1], GOOD.emissions[0], GOOD.emissions[2]]},
}


def test_good_evidence_breaks_no_rule() -> None:
    assert check(GOOD) == {}


@pytest.mark.parametrize("rule", Rule)
def test_a_broken_rule_is_found_and_no_other(rule: Rule) -> None:
    evidence = msgspec.structs.replace(GOOD, **BROKEN[rule]())
    assert set(check(evidence)) == {rule}
    assert str(rule) in in_words(check(evidence))[0]


def test_a_takeover_that_comes_late_overtakes_nothing_where_it_may() -> None:
    late = [Emission(2, "b", 1, 3.0), Emission(2, "a", 2, 4.0)]
    evidence = msgspec.structs.replace(GOOD, emissions=late)
    assert check(evidence).keys() == {Rule.OVERTAKEN}
    assert check(msgspec.structs.replace(evidence, late_takeovers=True)) == {}


def test_what_was_refused_once_overtakes_nothing() -> None:
    evidence = msgspec.structs.replace(GOOD, **BROKEN[Rule.OVERTAKEN]())
    assert check(msgspec.structs.replace(evidence, refused={"a"})) == {}


def test_what_was_told_and_not_committed_may_be_told_again_after_a_lost_lease_if_it_is_counted() -> None:
    again = msgspec.structs.replace(GOOD, **BROKEN[Rule.EMITTED_TWICE]())
    assert check(msgspec.structs.replace(again, losses=[5.5])) == {}
    uncounted = [*GOOD.emissions, Emission(2, "b", 2, 6.0)]
    evidence = msgspec.structs.replace(GOOD, emissions=uncounted, losses=[5.5])
    assert check(evidence).keys() == {Rule.UNCOUNTED}


@pytest.mark.parametrize("loss", [4.9, 6.1])
def test_a_loss_of_the_lease_before_or_after_excuses_no_webhook_that_is_told_again(loss: float) -> None:
    evidence = msgspec.structs.replace(GOOD, losses=[loss], **BROKEN[Rule.EMITTED_TWICE]())
    assert check(evidence).keys() == {Rule.EMITTED_TWICE}


def test_a_delivery_whose_answer_was_lost_may_be_counted_twice() -> None:
    evidence = msgspec.structs.replace(GOOD, records=with_record("a", deliveries=2))
    assert check(evidence).keys() == {Rule.MISCOUNTED}
    assert check(msgspec.structs.replace(evidence, recounted=True)) == {}


def test_a_webhook_parked_as_poison_is_counted_apart() -> None:
    reason = "the process ended while it was in user code, 3 times"
    parked = msgspec.structs.replace(GOOD, records=with_record("a", state=State.FAILED, reason=reason))
    assert check(parked) == {}
    assert parked.parked == ["a"]
