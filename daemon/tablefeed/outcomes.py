"""What follows from each outcome of a file's way beyond the file itself: the log, the news, and the gates of all."""

import structlog

from tablefeed import news
from tablefeed.errors import DeliveryError, FeedBlocked, FileRefused, GrantExpired, Transient
from tablefeed.gates import Gates, Place
from tablefeed.model import Entry, Feed, Receipt
from tablefeed.news import News

log = structlog.get_logger("pipeline")

_FAILING = "see whether it is out of order, or whether a proxy, a firewall or DNS keeps this machine from it"


class Outcomes:
    """Tells what happened, and opens and closes gates by it."""

    def __init__(self, gates: Gates, listeners: News, node: str = "") -> None:
        """`gates` are those that the dispatcher asks; `listeners` are told; `node`: what this one is in its fleet."""
        self._gates = gates
        self._news = listeners
        self._sender = {"node": node} if node else {}

    def granted(self, feed: Feed, seconds: float, *, refreshed: bool) -> None:
        """The API gave a URL; `refreshed`: the file had one before."""
        self._news.tell(news.Granted(feed.name, seconds, refreshed))
        self._reachable(feed.api.origin)

    def grant_refused(self, feed: Feed, entry: Entry, error: GrantExpired) -> None:
        """The store refused a URL, and another one is fetched at once."""
        log.info("grant_refreshed", feed=feed.name, path=entry.version.path, reason=str(error))

    def sending(self, feed: Feed, entry: Entry) -> None:
        """An upload begins."""
        self._news.tell(news.Sending(feed.name, entry))
        log.debug("upload_started", feed=feed.name, path=entry.version.path, bytes=entry.version.size)

    def delivered(self, feed: Feed, entry: Entry, receipt: Receipt) -> None:
        """The store has the file, and the ledger knows."""
        self._news.tell(news.Delivered(feed.name, entry, receipt))
        log.info(
            "file_delivered",
            feed=feed.name,
            path=entry.version.path,
            bytes=receipt.size,
            seconds=round((receipt.finished_at - receipt.started_at) / 1000, 3),
            md5=receipt.md5,
            verified=receipt.verified,
            request_id=receipt.request_id,
            attempts=entry.attempts + 1,
            **self._sender,
        )
        self._gates.depend(feed.name, feed.api.origin, receipt.origin)
        self._works(feed, Place.DELIVERY)
        self._reachable(receipt.origin)

    def skipped(self, feed: Feed, entry: Entry, earlier: Entry) -> None:
        """The content was delivered before."""
        self._news.tell(news.Skipped(feed.name, entry))
        log.info("file_skipped", feed=feed.name, path=entry.version.path, same_as=earlier.version.path, id=earlier.id)

    def archived(self, feed: Feed, entry: Entry, destination: str | None, seconds: float) -> None:
        """A delivered file has been moved, which took so long."""
        self._news.tell(news.Archived(feed.name, entry, seconds))
        log.info("file_archived", feed=feed.name, path=entry.version.path, destination=destination)
        self._works(feed, Place.ARCHIVE)

    def delayed(self, feed: Feed, entry: Entry, error: DeliveryError, wait: float) -> None:
        """It failed and is tried again after so many seconds; a server may be what fails."""
        if isinstance(error, Transient | GrantExpired) and error.origin is not None and error.is_outage:
            self._gates.relate(feed.name, error.origin)
            if self._gates.host_failed(error.origin, str(error), error.retry_after, entry.id):
                log.error(
                    "host_failing",
                    origin=error.origin,
                    reason=str(error),
                    effect="its files wait and are retried",
                    remedy=_FAILING,
                )
        log.warning(
            "file_delayed",
            feed=entry.version.feed,
            path=entry.version.path,
            reason=str(error),
            failures=entry.attempts + 1,
            next_try_in=round(wait, 1),
        )

    def blocked(self, feed: Feed, entry: Entry, place: Place, error: FeedBlocked) -> None:
        """It failed by what is wrong for its whole feed."""
        closed = self._gates.feed_failed(feed.name, place, error.reason, entry.id, remedy=error.remedy)
        if closed:
            self._news.tell(news.Blocked(feed.name, place.value, error.reason, error.remedy))
        report = log.error if closed else log.debug
        report(
            "feed_paused",
            feed=feed.name,
            place=place.value,
            reason=error.reason,
            remedy=error.remedy,
            effect="its files stay and wait",
        )
        if error.origin is not None:
            self._reachable(error.origin)

    def failed(self, entry: Entry, error: DeliveryError) -> None:
        """A try ended and another follows, whatever the reason."""
        self._news.tell(news.Failed(entry.version.feed, type(error).__name__))

    def changed(self, feed: Feed, entry: Entry, error: DeliveryError) -> None:
        """The file is not, or may not be, what was to be sent."""
        log.info("file_changed", feed=feed.name, path=entry.version.path, reason=str(error))

    def left_to_others(self, feed: Feed, entry: Entry, error: DeliveryError) -> None:
        """Another node works on the file."""
        log.warning("file_left_to_others", feed=feed.name, path=entry.version.path, reason=str(error))

    def vanished(self, feed: Feed, entry: Entry) -> None:
        """The version is not there any more."""
        self._news.tell(news.Vanished(feed.name, entry.version.path))

    def rejected(self, feed: str, path: str, error: FileRefused) -> None:
        """The file can never be delivered, and the ledger knows."""
        self._news.tell(news.Rejected(feed, path, str(error)))

    def _works(self, feed: Feed, place: Place) -> None:
        if self._gates.feed_succeeded(feed.name, place):
            self._news.tell(news.Unblocked(feed.name, place.value))
            log.info("feed_resumed", feed=feed.name, place=place.value)

    def _reachable(self, origin: str) -> None:
        if self._gates.host_succeeded(origin):
            log.info("host_reachable_again", origin=origin)
