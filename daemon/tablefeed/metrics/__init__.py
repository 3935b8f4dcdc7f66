"""What monitoring is told: counters and histograms as things happen, gauges at the scrape, in a registry of our own.

No label takes a path, an id, a URL or a server's name; `catalog.py` has all values that each can have.
"""

import asyncio
import gzip
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

from prometheus_client import GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.registry import Collector

from tablefeed.metrics.counted import Counted
from tablefeed.metrics.gauges import Scene, gauges

__all__ = ["Metrics", "Page", "Scene"]

_COMPRESSION = 1
"""The fastest: such text shrinks to a tenth at any level."""


@dataclass(frozen=True, slots=True)
class Page:
    """What a scraper gets."""

    body: bytes
    headers: Mapping[str, str]
    """What tells of the body."""


class Metrics(Counted):
    """All metrics of a daemon."""

    def __init__(self) -> None:
        """Those of the process, and ours."""
        super().__init__()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        # A thread of its own: hung shares may hold all threads of others, and two scrapes at once are no faster.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metrics")

    async def page(self, scene: Scene, accept: str, accept_encoding: str) -> Page:
        """All metrics now, in the format and the coding that the scraper's headers ask for."""
        self.keep([feed.name for feed in scene.snapshot.feeds if feed.here])
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._write, scene, accept, accept_encoding
        )

    def _write(self, scene: Scene, accept: str, accept_encoding: str) -> Page:
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # it names a version that is none
            encode, content_type = choose_encoder("")
        body = encode(_Collected(self.registry, gauges(scene)))
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if not gzip_accepted(accept_encoding):
            return Page(body, headers)
        return Page(gzip.compress(body, _COMPRESSION), headers | {"Content-Encoding": "gzip"})

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class _Collected(Collector):
    """What is in a registry, and more.

    Without when each counter began, a series more for every one that nobody asks for: a restart shows in
    `process_start_time_seconds`.
    """

    def __init__(self, registry: Collector, more: Iterable[Metric]) -> None:
        self._registry = registry
        self._more = more

    def collect(self) -> Iterator[Metric]:
        """Give all."""
        for metric in chain(self._registry.collect(), self._more):
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
