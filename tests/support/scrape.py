"""What a scraper reads: every series with its labels, by the library's own parsers."""

from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


class Scrape:
    """One answer of `/metrics`."""

    def __init__(self, text: str, *, is_openmetrics: bool = False) -> None:
        parse = openmetrics.text_string_to_metric_families if is_openmetrics else text_string_to_metric_families
        self.text = text
        self.families = {family.name: family for family in parse(text)}
        self.samples: list[Sample] = [sample for family in self.families.values() for sample in family.samples]

    def all(self, name: str, **labels: str) -> list[Sample]:
        """All series of that name with at least these labels."""
        return [it for it in self.samples if it.name == name and labels.items() <= it.labels.items()]

    def value(self, name: str, **labels: str) -> float:
        """The value of the one series of that name with these labels."""
        found = self.all(name, **labels)
        assert len(found) == 1, (name, labels, found)
        return float(found[0].value)

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """The values of a metric by one of its labels, where they are not 0."""
        return {it.labels[label]: float(it.value) for it in self.all(name, **labels) if it.value}
