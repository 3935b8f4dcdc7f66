"""Writes `docs/metrics.md` to standard output: `python -m tablefeed.metrics.table`."""

import sys
from collections.abc import Iterator, Sequence

from tablefeed.metrics.catalog import COUNTED, FEEDS, GAUGES, Declared

_HEAD = """\
# Metrics

All that `/metrics` tells, beside the usual `process_…` and `python_…` of the Python client, in the text format of
Prometheus, or in OpenMetrics where the scraper asks for it. `python -m tablefeed.metrics.table` writes this page.

Nodes of a fleet have one ledger, so what comes from it is the same on all that serve a feed: its queue, its refused
files, its last arrival and delivery. Take the `max` of it over them. What is counted as it happens, and uploads in
flight, are each node's own: take the `sum`.

`feed` is the feed's name; series of a feed that a reload removes disappear. No label holds a path, a URL or a server.
"""


def table() -> str:
    """The page."""
    parts = [
        _HEAD,
        "## Counted as it happens\n\nFrom 0 with each start.\n",
        *_rows(COUNTED),
        "\n## Told at the scrape\n\nWhat comes from the ledger may be half a second old, or more where it is large.\n",
        *_rows(GAUGES),
    ]
    return "\n".join(parts) + "\n"


def _rows(declared: Sequence[Declared]) -> Iterator[str]:
    yield "| metric | kind | labels | tells |"
    yield "| --- | --- | --- | --- |"
    for one in declared:
        labels = "; ".join(
            f"`{name}`: {', '.join(f'`{value}`' for value in values)}" if values != FEEDS else f"`{name}`"
            for name, values in one.labels.items()
        )
        yield f"| `{one.name}` | {one.kind} | {labels} | {one.help} |"


if __name__ == "__main__":
    sys.stdout.write(table())
