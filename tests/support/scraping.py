"""A scrape of a trigger's metrics, read as Prometheus reads it."""

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.support.asgi import RawHeaders, Upload, call
from tests.support.http import Answer
from whereby_trigger.metrics import PREFIX

Labels = tuple[tuple[str, str], ...]


class Scrape:
    """Hold the samples of one scrape; names are without our prefix."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = list(text_string_to_metric_families(text))
        self._samples: dict[tuple[str, Labels], float] = {}
        for family in self.families:
            for sample in family.samples:
                self._samples[sample.name, tuple(sorted(sample.labels.items()))] = sample.value

    def value(self, name: str, **labels: str) -> float:
        """Return a sample's value; fails if there is none."""
        return self._samples[PREFIX + name, tuple(sorted(labels.items()))]

    def has(self, name: str) -> bool:
        return any(sample == PREFIX + name for sample, _ in self._samples)

    def above_zero(self, name: str) -> dict[tuple[str, ...], float]:
        """Return the samples of a metric that are not 0, by the values of their labels in the order of their names."""
        return {
            tuple(value for _, value in labels): value
            for (sample, labels), value in self._samples.items()
            if sample == PREFIX + name and value
        }

    @property
    def series(self) -> set[tuple[str, Labels]]:
        return set(self._samples)


async def answer_of(app: Any, headers: RawHeaders = (), *, method: str = "GET") -> Answer:
    answer = await call(app, Upload(), headers, method=method, path="/metrics")
    assert answer is not None
    return answer


async def scrape(app: Any) -> Scrape:
    """Scrape an ASGI app of metrics."""
    answer = await answer_of(app)
    assert answer.status == 200
    return Scrape(answer.body.decode())
