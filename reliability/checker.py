"""The checker: compares what was acknowledged, stored, decided and emitted. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from enum import StrEnum
from itertools import pairwise

from msgspec import Struct

from reliability.corpus import Item
from whereby_trigger.store import Record, State

SHOWN = 3


class Emission(Struct, frozen=True):
    """Hold one success: the receiver's life, the webhook, the attempt, and the time by the receiver's clock."""

    life: int
    id: str
    attempt: int
    at: float

    @classmethod
    def read(cls, line: str) -> "Emission":
        """Read a line of the receiver's file of emissions."""
        life, id, attempt, at = line.split()
        return cls(int(life), id, int(attempt), float(at))


class Evidence(Struct, frozen=True):
    """Hold the evidence: what was sent and how often, the ledger, the store by arrival, and the emissions.

    `late_takeovers`: webhooks of a dead replica may be decided after newer ones of their room that others received.
    `refused` are those that were refused once: they may be stored anyway, but the sender sends them again later.
    `recounted`: a delivery may be counted twice, if the answer that it was counted got lost. `losses` are
    the times at which a process lost its lease and continued as another replica. What it had emitted and not committed
    by then is emitted again, as after a death, with a higher attempt, and may come after newer webhooks of its room.
    """

    items: Mapping[str, Item]
    sends: Counter[str]
    acknowledged: Counter[str]
    records: Sequence[Record]
    emissions: Sequence[Emission]
    late_takeovers: bool = False
    refused: Set[str] = frozenset()
    recounted: bool = False
    losses: Sequence[float] = ()

    @property
    def parked(self) -> list[str]:
        """List the webhooks that were in user code at too many deaths to be tried again."""
        return [record.id for record in self.records if record.state is State.FAILED and _is_parked(record)]


class Rule(StrEnum):
    """Name what must not be found."""

    LOST = "acknowledged, but not stored"
    INVENTED = "stored, but never sent"
    DOUBLED = "stored more than once"
    UNDECIDED = "without a decision"
    MISJUDGED = "decided as something else than it is"
    MISCOUNTED = "counted less often than it was acknowledged, or more often than it was sent"
    UNHEARD = "to be emitted, but never heard of"
    HEARD_WRONGLY = "emitted, but not to be"
    EMITTED_TWICE = "emitted twice in one life, with its lease held"
    UNCOUNTED = "emitted again without counting the attempt"
    DECIDED_TWICE = "emitted after its decision was made"
    OVERTAKEN = "emitted after a newer webhook of its room"


TWICE = (Rule.DOUBLED, Rule.EMITTED_TWICE, Rule.DECIDED_TWICE, Rule.UNCOUNTED)
"""The rules that are broken if something was decided twice."""


def check(evidence: Evidence) -> dict[Rule, list[str]]:
    """Return the broken rules, each with its examples."""
    parked = set(evidence.parked)
    by_id = {record.id: record for record in evidence.records}
    found: dict[Rule, Iterable[object]] = {
        Rule.LOST: evidence.acknowledged.keys() - by_id.keys(),
        Rule.INVENTED: by_id.keys() - evidence.items.keys(),
        Rule.DOUBLED: _repeated(record.id for record in evidence.records),
        Rule.UNDECIDED: [id for id, record in by_id.items() if record.state is State.PENDING],
        Rule.MISJUDGED: _misjudged(evidence.items, by_id, parked),
        Rule.MISCOUNTED: _miscounted(evidence, by_id),
        Rule.UNHEARD: _unheard(evidence, by_id),
        Rule.HEARD_WRONGLY: _heard_wrongly(evidence),
        Rule.EMITTED_TWICE: _emitted_twice(evidence),
        Rule.UNCOUNTED: _attempts_not_rising(evidence.emissions),
        Rule.DECIDED_TWICE: _heard_after_decision(evidence, by_id),
        Rule.OVERTAKEN: _overtaken(evidence),
    }
    return {rule: sorted(map(str, broken)) for rule, broken in found.items() if broken}


def in_words(broken: Mapping[Rule, Sequence[str]]) -> list[str]:
    """Return one line for each broken rule, with its first few examples."""
    return [f"{len(examples)} {rule}: {', '.join(examples[:SHOWN])}" for rule, examples in broken.items()]


def examples(broken: Mapping[Rule, Sequence[str]], *rules: Rule) -> int:
    """Return how many examples there are of some broken rules."""
    return sum(len(broken.get(rule, ())) for rule in rules)


def _is_parked(record: Record) -> bool:
    return record.reason.startswith("the process ended while it was in user code")


def _repeated(values: Iterable[object]) -> list[object]:
    return [value for value, count in Counter(values).items() if count > 1]


def _misjudged(items: Mapping[str, Item], by_id: Mapping[str, Record], parked: set[str]) -> list[str]:
    decided = {id: row.state for id, row in by_id.items() if row.state is not State.PENDING and id not in parked}
    return [f"{id} ({state})" for id, state in decided.items() if id in items and items[id].state is not state]


def _miscounted(evidence: Evidence, by_id: Mapping[str, Record]) -> list[str]:
    times = 2 if evidence.recounted else 1
    return [
        f"{id} ({row.deliveries})"
        for id, row in by_id.items()
        if not evidence.acknowledged[id] <= row.deliveries <= evidence.sends[id] * times
    ]


def _unheard(evidence: Evidence, by_id: Mapping[str, Record]) -> set[str]:
    due = {id for id, row in by_id.items() if row.state is State.FIRED}
    return due - {emission.id for emission in evidence.emissions}


def _heard_wrongly(evidence: Evidence) -> list[str]:
    fires = {id for id, item in evidence.items.items() if item.state is State.FIRED}
    return [emission.id for emission in evidence.emissions if emission.id not in fires]


def _emitted_twice(evidence: Evidence) -> list[tuple[int, str]]:
    """Find webhooks that a process emitted twice without losing its lease in between."""
    times: dict[tuple[int, str], list[float]] = defaultdict(list)
    for emission in evidence.emissions:
        times[emission.life, emission.id].append(emission.at)
    return [
        key
        for key, at in times.items()
        if any(not any(first <= loss <= again for loss in evidence.losses) for first, again in pairwise(at))
    ]


def _attempts_not_rising(emissions: Sequence[Emission]) -> list[str]:
    attempts: dict[str, list[int]] = defaultdict(list)
    for emission in emissions:
        attempts[emission.id].append(emission.attempt)
    return [f"{id} {numbers}" for id, numbers in attempts.items() if any(b <= a for a, b in pairwise(numbers))]


def _heard_after_decision(evidence: Evidence, by_id: Mapping[str, Record]) -> list[str]:
    """Find webhooks decided twice: the listener is sync, so an emission after the decision belongs to a second one."""
    late = []
    for emission in evidence.emissions:
        decided_at = by_id[emission.id].decided_at if emission.id in by_id else None
        if decided_at is not None and emission.at > decided_at + 1e-6:
            late.append(emission.id)
    return late


def _overtaken(evidence: Evidence) -> list[str]:
    arrival = {record.id: number for number, record in enumerate(evidence.records)}
    newest: dict[tuple[int, str], int] = {}
    overtaken = []
    for emission in evidence.emissions:
        item = evidence.items.get(emission.id)
        taken_over = (evidence.late_takeovers or evidence.losses) and emission.attempt > 1
        late = taken_over or emission.id in evidence.refused
        if item is None or emission.id not in arrival or late:
            continue
        place = emission.life, item.room
        if arrival[emission.id] < newest.get(place, -1):
            overtaken.append(emission.id)
        newest[place] = max(newest.get(place, -1), arrival[emission.id])
    return overtaken
