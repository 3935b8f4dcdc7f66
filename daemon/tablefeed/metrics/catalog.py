"""Every metric of our own, declared once: its name, what it tells, its labels and all the values that these can have.

Names and units follow Prometheus's conventions ("Metric and label naming"). `python -m tablefeed.metrics.table` makes
`docs/metrics.md` of it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from tablefeed.errors import DeliveryError


class Kind(StrEnum):
    """What sort of number it is."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"
    GAUGE = "gauge"
    INFO = "info"


FEEDS: tuple[str, ...] = ()
"""The values of `feed`: as many as the configuration names. No label takes a path, an id or a server's name."""


@dataclass(frozen=True, slots=True)
class Declared:
    """One metric."""

    name: str
    kind: Kind
    help: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """All values of each label."""
    buckets: tuple[float, ...] = ()
    """Of a histogram, without the last one, which takes all."""


def _leaves(kind: type[DeliveryError]) -> Iterator[str]:
    yield kind.__name__
    for below in kind.__subclasses__():
        yield from _leaves(below)


OUTCOMES = ("delivered", "skipped", "rejected", "vanished")
STAGES = ("settle", "queue", "presign", "upload", "archive")
ERRORS = tuple(sorted(set(_leaves(DeliveryError)) - {"DeliveryError", "Transient", "FileRefused", "LeaseLost"}))
"""The classes of errors after which another try follows."""
QUEUE_STATES = ("queued", "uploading", "archiving")
PAUSES = ("operator", "directory", "delivery", "archive", "server")
SERVERS = ("api", "store")
NODE_STATES = ("living", "over", "missed")
PLACES = ("ledger", "archive")

_MINUTE, _HOUR = 60.0, 3_600.0
_DELIVERY_BUCKETS = (
    *(0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
    *(_MINUTE, 5 * _MINUTE, 15 * _MINUTE, _HOUR, 4 * _HOUR, 12 * _HOUR, 24 * _HOUR),
)
_STAGE_BUCKETS = (
    *(0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0),
    *(_MINUTE, 5 * _MINUTE, 15 * _MINUTE, _HOUR, 4 * _HOUR, 24 * _HOUR),
)
_COMMIT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)
_LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
_GROUP_BUCKETS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0)


def _labels(**values: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    return MappingProxyType(values)


COUNTED = (
    Declared(
        "tablefeed_files_total",
        Kind.COUNTER,
        "Files by what became of them: delivered to the store; skipped, since their content was delivered before; "
        "rejected, since they never can be delivered; vanished or replaced when their turn came.",
        _labels(feed=FEEDS, outcome=OUTCOMES),
    ),
    Declared("tablefeed_files_queued_total", Kind.COUNTER, "Files that were whole and queued.", _labels(feed=FEEDS)),
    Declared("tablefeed_delivered_bytes_total", Kind.COUNTER, "Bytes of delivered files.", _labels(feed=FEEDS)),
    Declared(
        "tablefeed_delivery_seconds",
        Kind.HISTOGRAM,
        "Time from a file's last change in its drop directory, renaming included, until the store confirmed it.",
        _labels(feed=FEEDS),
        _DELIVERY_BUCKETS,
    ),
    Declared(
        "tablefeed_stage_seconds",
        Kind.HISTOGRAM,
        "Time that delivered files took by stage. settle: from the last change until they were queued as whole; "
        "queue: from then until the upload that delivered them began, with its URL and earlier tries; presign: one URL "
        "from the API; upload: that upload; archive: the move afterwards. settle + queue + upload make up "
        "tablefeed_delivery_seconds.",
        _labels(stage=STAGES),
        _STAGE_BUCKETS,
    ),
    Declared(
        "tablefeed_retries_total",
        Kind.COUNTER,
        "Tries that failed and are followed by another, by the class of the error.",
        _labels(feed=FEEDS, error=ERRORS),
    ),
    Declared(
        "tablefeed_grants_total",
        Kind.COUNTER,
        "Upload URLs that the API gave, refreshed ones too.",
        _labels(feed=FEEDS),
    ),
    Declared(
        "tablefeed_grant_refreshes_total",
        Kind.COUNTER,
        "Upload URLs that took the place of one which was too old or was refused.",
        _labels(feed=FEEDS),
    ),
    Declared(
        "tablefeed_ledger_commit_seconds",
        Kind.HISTOGRAM,
        "Time that one commit of the ledger took, with its statements.",
        buckets=_COMMIT_BUCKETS,
    ),
    Declared(
        "tablefeed_ledger_commit_transitions",
        Kind.HISTOGRAM,
        "Changes that were committed together.",
        buckets=_GROUP_BUCKETS,
    ),
    Declared(
        "tablefeed_event_loop_lag_seconds",
        Kind.HISTOGRAM,
        "How late the event loop was for its heartbeat, twice a second.",
        buckets=_LAG_BUCKETS,
    ),
    Declared("tablefeed_build_info", Kind.INFO, "What runs: always 1.", _labels(version=(), python=())),
)
"""Counted as it happens, and zero again after a restart."""

GAUGES = (
    Declared(
        "tablefeed_ok",
        Kind.GAUGE,
        "1 while no feed, server or ledger needs anybody to look, on any node of the fleet, else 0.",
    ),
    Declared("tablefeed_draining", Kind.GAUGE, "1 while the daemon is ending, else 0."),
    Declared("tablefeed_feeds", Kind.GAUGE, "Feeds that are served."),
    Declared(
        "tablefeed_node_info",
        Kind.GAUGE,
        "What this daemon is called in its fleet: always 1; missing where there is none. "
        "`… * on (instance) group_left (node) tablefeed_node_info` gives any other metric that name.",
        _labels(node=()),
    ),
    Declared(
        "tablefeed_nodes",
        Kind.GAUGE,
        "Daemons of the fleet: living gave a sign of life within their lease; missed did not, and files wait in their "
        "directories, where no other can take them; over are others that did not within a day. Missing where there is "
        "no fleet.",
        _labels(state=NODE_STATES),
    ),
    Declared(
        "tablefeed_node_waiting_files",
        Kind.GAUGE,
        "Files in the queue that lie in this node's own directories, so that no other can deliver them; missing where "
        "there is no fleet.",
    ),
    Declared(
        "tablefeed_queue_files",
        Kind.GAUGE,
        "Files in the ledger's queue: queued wait for their turn or their next try, uploading are claimed, archiving "
        "are delivered and have not left their directory.",
        _labels(feed=FEEDS, state=QUEUE_STATES),
    ),
    Declared("tablefeed_queue_bytes", Kind.GAUGE, "Bytes of the files in state queued.", _labels(feed=FEEDS)),
    Declared(
        "tablefeed_oldest_queued_age_seconds",
        Kind.GAUGE,
        "Time since the oldest file that is not delivered was queued; 0 while there is none.",
        _labels(feed=FEEDS),
    ),
    Declared("tablefeed_unsettled_files", Kind.GAUGE, "Files that are not whole yet.", _labels(feed=FEEDS)),
    Declared(
        "tablefeed_retrying_files",
        Kind.GAUGE,
        "Files in the queue that have failed before and are tried again.",
        _labels(feed=FEEDS),
    ),
    Declared(
        "tablefeed_refused_files",
        Kind.GAUGE,
        "Files that were set aside in `failed` and wait for somebody.",
        _labels(feed=FEEDS),
    ),
    Declared("tablefeed_uploads_in_flight", Kind.GAUGE, "Uploads that run now.", _labels(feed=FEEDS)),
    Declared(
        "tablefeed_feed_paused",
        Kind.GAUGE,
        "1 while a feed's files wait for this reason, else 0: somebody paused it (operator); its directory cannot be "
        "read (directory); its files cannot be delivered (delivery) or archived (archive) until something is mended; a "
        "server fails (server).",
        _labels(feed=FEEDS, reason=PAUSES),
    ),
    Declared(
        "tablefeed_feed_stale",
        Kind.GAUGE,
        "1 while no file has arrived for longer than `expect_every`, else 0.",
        _labels(feed=FEEDS),
    ),
    Declared(
        "tablefeed_expect_every_seconds",
        Kind.GAUGE,
        "The feed's `expect_every`; missing where it is not set.",
        _labels(feed=FEEDS),
    ),
    Declared(
        "tablefeed_last_arrival_timestamp_seconds",
        Kind.GAUGE,
        "When a file was queued last, in Unix time; missing before the first one. It outlasts restarts.",
        _labels(feed=FEEDS),
    ),
    Declared(
        "tablefeed_last_delivery_timestamp_seconds",
        Kind.GAUGE,
        "When a file was delivered last, in Unix time; missing before the first one. It outlasts restarts.",
        _labels(feed=FEEDS),
    ),
    Declared(
        "tablefeed_failing_servers",
        Kind.GAUGE,
        "Servers that fail, so that files wait for them.",
        _labels(kind=SERVERS),
    ),
    Declared("tablefeed_ledger_readable", Kind.GAUGE, "1 while the ledger answers; 0: the gauges of feeds are old."),
    Declared("tablefeed_ledger_writable", Kind.GAUGE, "0 while something waits for the ledger's disk, else 1."),
    Declared(
        "tablefeed_upload_limit",
        Kind.GAUGE,
        "Uploads that may run at a time now, of all feeds together: as configured, or as many as the stores take well.",
    ),
    Declared(
        "tablefeed_bandwidth_limit_bytes_per_second",
        Kind.GAUGE,
        "What all uploads may take together now; missing without a limit.",
    ),
    Declared(
        "tablefeed_disk_available_bytes",
        Kind.GAUGE,
        "Free space for the ledger and for each feed's archive, looked up once a minute; missing while a disk does not "
        "answer. `feed` is empty for the ledger.",
        _labels(place=PLACES, feed=FEEDS),
    ),
    Declared(
        "tablefeed_disk_size_bytes", Kind.GAUGE, "Size of the same file systems.", _labels(place=PLACES, feed=FEEDS)
    ),
)
"""Told at the scrape, from what the daemon shows everywhere."""

CATALOG = COUNTED + GAUGES
