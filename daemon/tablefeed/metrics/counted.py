"""What is counted as it happens. One look-up a feed on the way of a file, and no lock that anybody waits for."""

import platform
from collections.abc import Collection
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram, Info
from prometheus_client.metrics import MetricWrapperBase

from tablefeed import __version__, news
from tablefeed.metrics.catalog import COUNTED, ERRORS, OUTCOMES, STAGES
from tablefeed.model import Entry, Receipt

M = TypeVar("M", bound=MetricWrapperBase)

_BY_NAME = {declared.name: declared for declared in COUNTED}


class _OfFeed:
    """The series of one feed. They begin at 0, so that the first event shows as an increase."""

    def __init__(self, feed: str, counted: "Counted") -> None:
        self.files = {outcome: counted.files.labels(feed, outcome) for outcome in OUTCOMES}
        self.retries = {error: counted.retries.labels(feed, error) for error in ERRORS}
        self.queued = counted.queued.labels(feed)
        self.bytes = counted.bytes.labels(feed)
        self.delivery = counted.delivery.labels(feed)
        self.grants = counted.grants.labels(feed)
        self.refreshes = counted.refreshes.labels(feed)


class Counted:
    """Counters and histograms, in a registry of their own. Listens to the news; `committed` may be called anywhere."""

    def __init__(self) -> None:
        """Nothing has happened."""
        self.registry = CollectorRegistry()
        self.files = self._make(Counter, "tablefeed_files_total")
        self.queued = self._make(Counter, "tablefeed_files_queued_total")
        self.bytes = self._make(Counter, "tablefeed_delivered_bytes_total")
        self.delivery = self._histogram("tablefeed_delivery_seconds")
        self.retries = self._make(Counter, "tablefeed_retries_total")
        self.grants = self._make(Counter, "tablefeed_grants_total")
        self.refreshes = self._make(Counter, "tablefeed_grant_refreshes_total")
        stages = self._histogram("tablefeed_stage_seconds")
        self._stages = {stage: stages.labels(stage) for stage in STAGES}
        self._commit_seconds = self._histogram("tablefeed_ledger_commit_seconds")
        self._commit_size = self._histogram("tablefeed_ledger_commit_transitions")
        self._lag = self._histogram("tablefeed_event_loop_lag_seconds")
        build = Info("tablefeed_build", _BY_NAME["tablefeed_build_info"].help, registry=self.registry)
        build.info({"version": __version__, "python": platform.python_version()})
        self._feeds: dict[str, _OfFeed] = {}

    def _make(self, kind: type[M], name: str) -> M:
        declared = _BY_NAME[name]
        return kind(name, declared.help, tuple(declared.labels), registry=self.registry)

    def _histogram(self, name: str) -> Histogram:
        declared = _BY_NAME[name]
        labels = tuple(declared.labels)
        return Histogram(name, declared.help, labels, registry=self.registry, buckets=declared.buckets)

    def keep(self, feeds: Collection[str]) -> None:
        """Have series for these feeds, and for no others: what is not served any more would be told for ever."""
        for feed in feeds:
            self._of(feed)
        for feed in self._feeds.keys() - set(feeds):
            del self._feeds[feed]
            for metric in (
                *(self.files, self.queued, self.bytes, self.delivery, self.retries, self.grants, self.refreshes),
            ):
                metric.remove_by_labels({"feed": feed})

    def note(self, item: news.Item) -> None:
        """Count an item of the news."""
        match item:
            case news.Granted(feed, seconds, refreshed):
                self._of(feed).grants.inc()
                if refreshed:
                    self._of(feed).refreshes.inc()
                self._stages["presign"].observe(seconds)
            case news.Delivered(feed, entry, receipt):
                self._delivered(self._of(feed), entry, receipt)
            case news.Archived(_, _, seconds):
                self._stages["archive"].observe(seconds)
            case news.Queued(feed, count):
                self._of(feed).queued.inc(count)
            case news.Failed(feed, error):
                self._of(feed).retries[error].inc()
            case news.Skipped(feed):
                self._of(feed).files["skipped"].inc()
            case news.Rejected(feed):
                self._of(feed).files["rejected"].inc()
            case news.Vanished(feed):
                self._of(feed).files["vanished"].inc()
            case _:
                pass

    def committed(self, seconds: float, transitions: int) -> None:
        """The ledger has committed so many changes together. For its own thread."""
        self._commit_seconds.observe(seconds)
        self._commit_size.observe(transitions)

    def lagged(self, seconds: float) -> None:
        """The event loop was so late for its heartbeat."""
        self._lag.observe(seconds)

    def _of(self, feed: str) -> _OfFeed:
        found = self._feeds.get(feed)
        if found is None:
            found = self._feeds[feed] = _OfFeed(feed, self)
        return found

    def _delivered(self, series: _OfFeed, entry: Entry, receipt: Receipt) -> None:
        series.files["delivered"].inc()
        series.bytes.inc(receipt.size)
        self._stages["upload"].observe(_between(receipt.started_at, receipt.finished_at))
        self._stages["queue"].observe(_between(entry.queued_at, receipt.started_at))
        if entry.version.dropped_at is not None:
            series.delivery.observe(_between(entry.version.dropped_at, receipt.finished_at))
            self._stages["settle"].observe(_between(entry.version.dropped_at, entry.queued_at))


def _between(earlier: int, later: int) -> float:
    """Seconds between two moments in Unix milliseconds.

    They may come from different clocks, a file server's and ours, so that one may seem to lie before the other.
    """
    return max(0, later - earlier) / 1000
