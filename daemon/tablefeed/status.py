"""What the daemon is doing, as people and programs are shown it: plain values, and the rules that name a state.

`/api/status`, the page, `tablefeed status`, systemd's status line and the metrics all show this one picture, most of
them in the words of `telling.py`. Times are Unix milliseconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tablefeed.nodes import NO_FLEET, FleetStatus


class FeedState(StrEnum):
    """How a feed is; the first that applies, in this order."""

    PAUSED = "paused"
    """Somebody has paused it."""
    UNUSABLE = "unusable"
    """Its directory cannot be read."""
    BLOCKED = "blocked"
    """Its files cannot be delivered or archived until somebody mends something."""
    WAITING = "waiting"
    """A server that it needs fails; its files are retried."""
    STALE = "stale"
    """No file has arrived for longer than `expect_every`."""
    OK = "ok"


class Kind(StrEnum):
    """What sort of trouble a feed has."""

    DIRECTORY = "directory"
    DELIVERY = "delivery"
    ARCHIVE = "archive"
    SERVER = "server"
    STALE = "stale"


_STATE_OF = {
    Kind.DIRECTORY: FeedState.UNUSABLE,
    Kind.DELIVERY: FeedState.BLOCKED,
    Kind.ARCHIVE: FeedState.BLOCKED,
    Kind.SERVER: FeedState.WAITING,
    Kind.STALE: FeedState.STALE,
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that keeps a feed from what it should do."""

    kind: Kind
    reason: str
    remedy: str
    """What to do about it; empty where it mends itself."""
    since: int | None = None
    next_try_at: int | None = None
    """When the daemon tries again by itself; None: it does so now, or somebody must act."""
    node: str = ""
    """On which other node of the fleet it is; empty: here."""

    @property
    def state(self) -> FeedState:
        """How a feed is that has it."""
        return _STATE_OF[self.kind]


@dataclass(frozen=True, slots=True)
class FeedStatus:
    """One feed."""

    name: str
    directory: str
    datatable_id: str
    state: FeedState
    queued: int = 0
    """Whole files that wait for their turn or their next try."""
    queued_bytes: int = 0
    uploading: int = 0
    """Files that are claimed: they get their URL, wait for a slot, or are being sent."""
    archiving: int = 0
    """Delivered files that have not left their drop directory."""
    unsettled: int = 0
    """Files that are not whole yet, as far as they are known."""
    retrying: int = 0
    """Of those queued, uploading and archiving, the ones that have failed before."""
    refused: int = 0
    """Files that were set aside and have not been put back."""
    delivered_today: int = 0
    bytes_today: int = 0
    oldest_queued_at: int | None = None
    oldest_undelivered_at: int | None = None
    """When the first of those queued and uploading was queued: unlike the former, it holds while that file is tried."""
    next_try_at: int | None = None
    last_arrival_at: int | None = None
    last_delivery_at: int | None = None
    expect_every: float | None = None
    """Seconds; None: nobody expects files."""
    paused_at: int | None = None
    here: bool = True
    """False: only other nodes serve it, and what is told of it is what the ledger knows."""
    nodes: tuple[str, ...] = ()
    """Which nodes of the fleet serve it; none where there is no fleet."""
    troubles: tuple[Trouble, ...] = ()


@dataclass(frozen=True, slots=True)
class UploadStatus:
    """One upload in flight."""

    id: int
    feed: str
    path: str
    size: int
    sent: int
    rate: float
    """Bytes a second, over the last seconds."""
    started_at: int
    attempts: int
    """Failures before this try."""


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """A server that fails, so that files wait for it."""

    origin: str
    reason: str
    feeds: tuple[str, ...]
    since: int | None
    next_try_at: int | None


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """A store, and how many uploads it takes at a time, as far as that has been found."""

    origin: str
    concurrency: int


@dataclass(frozen=True, slots=True)
class FileTrouble:
    """A file that waits for its next try, or was refused."""

    id: int
    feed: str
    path: str
    state: str
    reason: str
    attempts: int
    changed_at: int
    next_try_at: int | None
    """None: it is not tried again until somebody asks for it."""
    node: str = ""
    """In whose directory it lies; empty: there is no fleet, or all nodes share the directory."""


@dataclass(frozen=True, slots=True)
class MinuteStatus:
    """What was delivered in one minute."""

    at: int
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The daemon at one moment."""

    version: str
    node: str
    pid: int
    now: int
    started_at: int
    draining: bool = False
    bandwidth: int | None = None
    """Bytes a second that uploads may take together now; None: no limit."""
    bandwidth_source: str = ""
    """Where that limit comes from, in words."""
    concurrency: int = 0
    """Uploads that may run at a time now; 0: not known."""
    concurrency_source: str = ""
    """Where that comes from: `configuration` or `auto`."""
    stores: tuple[StoreStatus, ...] = ()
    """Each with its own limit; none where that is configured."""
    ledger_problem: str = ""
    """Why the ledger cannot be read; what comes from it is missing then."""
    ledger_held_up: str = ""
    """Why what is to be written to the ledger waits, and what to do; nothing new is sent meanwhile."""
    fleet: FleetStatus = NO_FLEET
    feeds: tuple[FeedStatus, ...] = ()
    uploads: tuple[UploadStatus, ...] = ()
    servers: tuple[ServerStatus, ...] = ()
    files: tuple[FileTrouble, ...] = ()
    """The latest of the files that wait for another try or were refused."""
    hour: tuple[MinuteStatus, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nobody needs to look."""
        fine = (FeedState.OK, FeedState.PAUSED)
        works = not (self.ledger_problem or self.ledger_held_up or self.fleet.missed)
        works = works and not any(node.more_troubles for node in self.fleet.nodes)
        return works and not self.servers and all(feed.state in fine for feed in self.feeds)


def state_of(paused_at: int | None, troubles: Sequence[Trouble]) -> FeedState:
    """How a feed with these troubles is."""
    if paused_at is not None:
        return FeedState.PAUSED
    states = {trouble.state for trouble in troubles}
    return next(state for state in FeedState if state in states or state is FeedState.OK)


SEE_TO_THE_EXPORT = "See whether the job that exports them runs, and whether it writes to this directory"
"""What to do about a stale feed."""


def stale_since(expect_every: float, arrived_at: int | None, known_at: int, now: int) -> int | None:
    """Since when a file is overdue, in Unix milliseconds; None: none is.

    A feed that never had a file is expected to get its first from when it was known.
    """
    if not expect_every:
        return None
    due = (known_at if arrived_at is None else arrived_at) + round(expect_every * 1000)
    return due if now > due else None
