"""The words that all rooms share: feeds, file versions, grants, receipts and the states of a file.

Plain frozen values without behaviour of their own. Times are UTC milliseconds (`*_at`), durations are seconds
(`float`), sizes are bytes. Paths are what `os.fsdecode` gives, so a name that is not UTF-8 holds surrogates.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

LARGEST_PUT = 5 * 2**30
"""Bytes: what object stores take in one PUT."""


class State(StrEnum):
    """Where a file version stands. The first three are open, the rest are closed for good."""

    QUEUED = "queued"
    UPLOADING = "uploading"
    UPLOADED = "uploaded"
    ARCHIVED = "archived"
    REJECTED = "rejected"
    SKIPPED = "skipped"
    GONE = "gone"


OPEN_STATES = (State.QUEUED, State.UPLOADING, State.UPLOADED)


class Ready(StrEnum):
    """How a feed tells that a file is whole."""

    CLOSED = "closed"
    STABLE = "stable"
    MARKER = "marker"


class Order(StrEnum):
    """Which file of a feed is claimed first."""

    OLDEST = "oldest"
    NEWEST = "newest"
    NAME = "name"


class Duplicates(StrEnum):
    """What becomes of a file whose very content the feed has delivered before."""

    UPLOAD = "upload"
    SKIP = "skip"


OWN_PREFIX = ".tablefeed-"
"""How our own hidden files in other people's directories are named, all of which are temporary."""

ARCHIVE_DELETE = "delete"
ARCHIVE_LEAVE = "leave"


def printable(path: str | os.PathLike[str]) -> str:
    """A path as text that any output can take: a byte that is not UTF-8 becomes `\\xff`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def signed64(value: int) -> int:
    """Fold an unsigned 64-bit number into the signed range that databases store.

    Some file systems use inode numbers above 2**63, and an mtime after the year 2262 exceeds it in nanoseconds.
    """
    return value if -(2**63) <= value < 2**63 else (value + 2**63) % 2**64 - 2**63


@dataclass(frozen=True, slots=True)
class FileVersion:
    """What identifies one drop. Two drops under one name differ in at least one of these.

    The device is recorded, but two versions that differ in nothing else are the same: network shares, btrfs and device
    mapper get other device numbers with every mount, and a file must not be sent again for that.
    """

    feed: str
    path: str
    """Relative to the feed's directory."""
    device: int = field(compare=False)
    inode: int
    size: int
    mtime_ns: int
    root: int | None = field(default=None, compare=False)
    """The inode of the feed's directory at that time: an empty one with another is not where the file was."""
    dropped_at: int | None = field(default=None, compare=False)
    """When the file changed last, by its ctime, which a rename sets too and no user can."""

    @classmethod
    def of(cls, feed: str, path: str, stat: os.stat_result, root: int | None = None) -> "FileVersion":
        """The version that `stat` describes."""
        # By position, since a scan makes one for each of a million files.
        return cls(
            feed,
            path,
            signed64(stat.st_dev),
            signed64(stat.st_ino),
            stat.st_size,
            signed64(stat.st_mtime_ns),
            None if root is None else signed64(root),
            stat.st_ctime_ns // 1_000_000,
        )

    def describes(self, stat: os.stat_result) -> bool:
        """Whether `stat` is of this very version, wherever the file lies by now."""
        return (
            self.size == stat.st_size
            and self.inode == signed64(stat.st_ino)
            and self.mtime_ns == signed64(stat.st_mtime_ns)
        )

    @property
    def name(self) -> str:
        """The last component of the path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Grant:
    """One presigned URL. The URL is a secret: it is kept out of `repr` and must never be logged."""

    url: str = field(repr=False)
    expires_at: int
    """On the server's clock."""
    lifetime: float
    """Seconds from the issue to the expiry."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """What the signature demands to be sent, beyond `Host` and `Content-Length`."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What proves a delivery."""

    size: int
    md5: str | None
    """Hexadecimal, of the bytes as they were sent; None: the store tells no MD5 that it could be compared with."""
    etag: str | None
    verified: bool
    """Whether the store told a digest of what it has, and it was that of what was sent."""
    status: int
    request_id: str | None
    origin: str
    """Scheme, host and port of the store."""
    started_at: int
    finished_at: int


@dataclass(frozen=True, slots=True)
class Notice:
    """One event that a feed's webhook is to be told."""

    feed: str
    event: str
    """Its kind, such as `file.delivered`."""
    id: str
    """Unique, and the same at every try."""
    body: str
    """JSON, as it is sent."""
    node: str = ""
    """Who is to tell it; empty: there is no fleet."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One open row of the ledger, as its claimant sees it."""

    id: int
    version: FileVersion
    state: State
    queued_at: int
    attempts: int = 0
    """Failures of this version that counted."""
    failed_at: int | None = None
    """When it failed last."""
    grant: Grant | None = None
    receipt: Receipt | None = None
    duplicate_of: int | None = None
    """The id of the row that delivered the same content before: this one is moved and not sent."""


@dataclass(frozen=True, slots=True)
class ApiAccess:
    """Which ProcessMind a feed talks to. `key_name` names the key's source, never the key."""

    base_url: str
    tenant_id: str
    key_name: str

    @property
    def origin(self) -> str:
        """Scheme, host and port of the API."""
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc}"


@dataclass(frozen=True, slots=True)
class Feed:
    """One configured mapping from a directory to a datatable."""

    name: str
    directory: Path
    datatable_id: str
    api: ApiAccess
    dataset_id: str | None = None
    include: tuple[str, ...] = ("*.csv", "*.xlsx")
    exclude: tuple[str, ...] = (".*", "~$*")
    recursive: bool = False
    ready: Ready = Ready.CLOSED
    marker_suffix: str = ".done"
    settle: float = 2.0
    empty_after: float = 86_400.0
    order: Order = Order.OLDEST
    strict: bool = False
    """One file at a time, in order: a file that must wait holds those behind it."""
    concurrency: int = 0
    priority: int = 0
    shared: bool = False
    """All nodes of a fleet have the directory."""
    archive: str = "archive"
    """A directory, relative to the feed's or absolute, with strftime codes; or `delete`, or `leave`."""
    failed: str = "failed"
    archive_keep: float = 0.0
    """0: for ever."""
    expect_every: float = 0.0
    """An alarm is raised when no file arrived for this long; 0: never."""
    duplicates: Duplicates = Duplicates.UPLOAD
    max_size: int = LARGEST_PUT
    notify_url: str = field(default="", repr=False)
    """Where events are POSTed; its path is a secret, often. Empty: nowhere."""
    notify_key: str = ""
    """The name of the source of the secret that signs them; empty: they are not signed."""

    @property
    def target(self) -> str:
        """The datatable in full: where the API has it."""
        return f"{self.api.base_url}/tenant/{self.api.tenant_id}/datatable/{self.datatable_id}"
