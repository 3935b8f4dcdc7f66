"""What webhooks are told: the events, and the JSON of each. Its form is in `docs/webhooks.md`.

No event holds a URL, a key or a header: they are made of the values that the log and the history show as well.
"""

import json
import uuid
from collections.abc import Callable
from typing import Any

from tablefeed.errors import FileRefused
from tablefeed.model import Feed, FileVersion, Notice, Receipt, printable
from tablefeed.status import SEE_TO_THE_EXPORT
from tablefeed.units import iso

BY_TABLEFEED, BY_OPERATOR = "tablefeed", "operator"


class Notices:
    """Makes the events of feeds that have a webhook; for others there is None."""

    def __init__(
        self, node: str, dataset: Callable[[Feed], str | None], *, clock: Callable[[], float], teller: str = ""
    ) -> None:
        """`node` is the name of this machine, `dataset` gives a feed's, as far as it is known; `clock` Unix seconds.

        `teller`: which node of a fleet tells what happens here.
        """
        self._teller = teller
        self._node = node
        self._dataset = dataset
        self._clock = clock

    def delivered(self, feed: Feed, version: FileVersion, receipt: Receipt) -> Notice | None:
        """The store has a file."""
        return self._make(feed, "file.delivered", lambda: {"file": _file(version), "receipt": _receipt(receipt)})

    def rejected(self, feed: Feed, version: FileVersion, error: FileRefused) -> Notice | None:
        """A file can never be delivered."""
        return self._make(
            feed,
            "file.rejected",
            lambda: {"file": _file(version), "reason": printable(error.reason), "remedy": printable(error.remedy)},
        )

    def blocked(self, feed: Feed, place: str, reason: str, remedy: str) -> Notice | None:
        """A feed is paused because of what is wrong for all its files."""
        told = {"by": BY_TABLEFEED, "place": place, "reason": printable(reason), "remedy": printable(remedy)}
        return self._make(feed, "feed.paused", lambda: told)

    def unblocked(self, feed: Feed, place: str) -> Notice | None:
        """That is mended."""
        return self._make(feed, "feed.resumed", lambda: {"by": BY_TABLEFEED, "place": place})

    def paused(self, feed: Feed) -> Notice | None:
        """Somebody has paused a feed."""
        told = {
            "by": BY_OPERATOR,
            "place": None,
            "reason": "somebody has paused it",
            "remedy": "Resume it on the status page of the daemon",
        }
        return self._make(feed, "feed.paused", lambda: told)

    def resumed(self, feed: Feed) -> Notice | None:
        """Somebody has resumed it."""
        return self._make(feed, "feed.resumed", lambda: {"by": BY_OPERATOR, "place": None})

    def stale(self, feed: Feed, since: int, arrived_at: int | None) -> Notice | None:
        """No file has arrived for too long: one is overdue `since` then; times in Unix milliseconds."""
        return self._make(
            feed,
            "feed.stale",
            lambda: {
                "reason": "no file has arrived for longer than `expect_every`",
                "remedy": SEE_TO_THE_EXPORT,
                "expect_every": feed.expect_every,
                "last_arrival_at": arrived_at and iso(arrived_at),
                "overdue_since": iso(since),
            },
        )

    def _make(self, feed: Feed, event: str, rest: Callable[[], dict[str, Any]]) -> Notice | None:
        if not feed.notify_url:
            return None
        event_id = str(uuid.uuid4())
        body = {
            "event": event,
            "id": event_id,
            "time": iso(round(self._clock() * 1000)),
            "node": self._node,
            "feed": feed.name,
            "tenant_id": feed.api.tenant_id,
            "dataset_id": self._dataset(feed),
            "datatable_id": feed.datatable_id,
            **rest(),
        }
        return Notice(feed.name, event, event_id, json.dumps(body, separators=(",", ":")), self._teller)


def _file(version: FileVersion) -> dict[str, Any]:
    return {
        "path": printable(version.path),
        "size": version.size,
        "modified_at": _moment(version.mtime_ns // 1_000_000),
    }


def _moment(milliseconds: int) -> str | None:
    """In ISO 8601; None for what no calendar has: anybody may give a file any mtime."""
    try:
        return iso(milliseconds)
    except (ValueError, OverflowError, OSError):
        return None


def _receipt(receipt: Receipt) -> dict[str, Any]:
    return {
        "md5": receipt.md5,
        "etag": receipt.etag,
        "verified": receipt.verified,
        "status": receipt.status,
        "request_id": receipt.request_id,
        "origin": receipt.origin,
        "started_at": iso(receipt.started_at),
        "finished_at": iso(receipt.finished_at),
        "seconds": round((receipt.finished_at - receipt.started_at) / 1000, 3),
    }
