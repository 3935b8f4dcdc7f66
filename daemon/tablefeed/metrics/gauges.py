"""What is told at the scrape: the picture of the daemon that is shown everywhere, as gauges. Pure."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import GaugeMetricFamily, Metric

from tablefeed.disks import Place, Space
from tablefeed.metrics.catalog import GAUGES, PAUSES, SERVERS
from tablefeed.status import FeedStatus, Kind, Snapshot


@dataclass(frozen=True, slots=True)
class Scene:
    """What the gauges tell of."""

    snapshot: Snapshot
    apis: Collection[str] = ()
    """The origins of all APIs; any other server that fails is a store."""
    spaces: Mapping[Place, Space] = field(default_factory=dict)


_PAUSED_BY = {
    Kind.DIRECTORY: "directory",
    Kind.DELIVERY: "delivery",
    Kind.ARCHIVE: "archive",
    Kind.SERVER: "server",
}

Setter = Callable[..., None]
"""(name of the metric, value, *values of its labels)"""


def gauges(scene: Scene) -> Iterable[Metric]:
    """All gauges, also those that have no value now."""
    families = {
        declared.name: GaugeMetricFamily(declared.name, declared.help, labels=tuple(declared.labels))
        for declared in GAUGES
    }

    def put(name: str, value: float | None, *labels: str) -> None:
        if value is not None:
            families[name].add_metric(labels, value)

    _tell_daemon(scene, put)
    _tell_fleet(scene.snapshot, put)
    in_flight = Counter(upload.feed for upload in scene.snapshot.uploads)
    for feed in filter(lambda feed: feed.here, scene.snapshot.feeds):
        _tell_queue(feed, scene.snapshot.now, put)
        _tell_state(feed, put)
        put("tablefeed_uploads_in_flight", in_flight[feed.name], feed.name)
    for (place, name), space in scene.spaces.items():
        put("tablefeed_disk_available_bytes", space.available, place, name)
        put("tablefeed_disk_size_bytes", space.size, place, name)
    return families.values()


def _tell_daemon(scene: Scene, put: Setter) -> None:
    snapshot = scene.snapshot
    put("tablefeed_ok", snapshot.ok)
    put("tablefeed_draining", snapshot.draining)
    put("tablefeed_feeds", sum(feed.here for feed in snapshot.feeds))
    put("tablefeed_ledger_readable", not snapshot.ledger_problem)
    put("tablefeed_ledger_writable", not snapshot.ledger_held_up)
    put("tablefeed_upload_limit", snapshot.concurrency)
    put("tablefeed_bandwidth_limit_bytes_per_second", snapshot.bandwidth)
    failing = Counter("api" if server.origin in scene.apis else "store" for server in snapshot.servers)
    for kind in SERVERS:
        put("tablefeed_failing_servers", failing[kind], kind)


def _tell_fleet(snapshot: Snapshot, put: Setter) -> None:
    fleet = snapshot.fleet
    if fleet.now is None:
        return
    put("tablefeed_node_info", 1, snapshot.node)
    put("tablefeed_nodes", fleet.living, "living")
    put("tablefeed_nodes", fleet.over - len(fleet.missed), "over")
    put("tablefeed_nodes", len(fleet.missed), "missed")
    for node in fleet.nodes:
        if node.here:
            put("tablefeed_node_waiting_files", node.waiting)


def _tell_queue(feed: FeedStatus, now: int, put: Setter) -> None:
    name = feed.name
    put("tablefeed_queue_files", feed.queued, name, "queued")
    put("tablefeed_queue_files", feed.uploading, name, "uploading")
    put("tablefeed_queue_files", feed.archiving, name, "archiving")
    put("tablefeed_queue_bytes", feed.queued_bytes, name)
    oldest = feed.oldest_undelivered_at
    put("tablefeed_oldest_queued_age_seconds", 0 if oldest is None else max(0, now - oldest) / 1000, name)
    put("tablefeed_unsettled_files", feed.unsettled, name)
    put("tablefeed_retrying_files", feed.retrying, name)
    put("tablefeed_refused_files", feed.refused, name)


def _tell_state(feed: FeedStatus, put: Setter) -> None:
    name = feed.name
    # Each node tells of its own.
    kinds = {trouble.kind for trouble in feed.troubles if not trouble.node}
    reasons = {_PAUSED_BY[kind] for kind in kinds if kind in _PAUSED_BY}
    if feed.paused_at is not None:
        reasons.add("operator")
    for reason in PAUSES:
        put("tablefeed_feed_paused", reason in reasons, name, reason)
    put("tablefeed_feed_stale", Kind.STALE in kinds, name)
    put("tablefeed_expect_every_seconds", feed.expect_every, name)
    put("tablefeed_last_arrival_timestamp_seconds", _seconds(feed.last_arrival_at), name)
    put("tablefeed_last_delivery_timestamp_seconds", _seconds(feed.last_delivery_at), name)


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
