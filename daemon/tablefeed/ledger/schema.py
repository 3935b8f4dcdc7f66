"""The ledger's tables. One row of `files` is one file version; rows of closed versions are the audit trail.

Times are UTC milliseconds. Whatever stands here must mean the same on SQLite and on PostgreSQL.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    literal_column,
)
from sqlalchemy.engine import Dialect, default
from sqlalchemy.types import TypeDecorator

HEAD = "0008"
"""The newest migration; what a ledger must be at for this program to use it."""
FeedKey = tuple[str, str]
"""(node, name): what is known of a feed is known by. The node is empty where all share the directory, or alone."""


class FsPath(TypeDecorator[str]):
    r"""A path as text, also when it is not UTF-8.

    Databases store no surrogates, so each byte outside UTF-8 is written as `\xNN` and each backslash as `\\`; the
    way back is exact.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Python to database."""
        if value is None or (value.isascii() and "\\" not in value):
            return value
        doubled = value.replace("\\", "\\\\")
        return "".join(f"\\x{ord(c) - 0xDC00:02x}" if "\udc80" <= c <= "\udcff" else c for c in doubled)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """Database to Python."""
        if value is None or "\\" not in value:
            return value
        parts = value.split("\\\\")
        return "\\".join(_unescape(part) for part in parts)


INDEXED = 2_600
"""Bytes of a node, a feed and a path together that PostgreSQL takes into an index, with room for what it adds."""


def can_hold(node: str, feed: str, path: str) -> bool:
    """Whether PostgreSQL takes a path of a feed into its indexes."""
    room = INDEXED - len(node) - len(feed)
    # Most are far from it: no sign of a name takes more than four bytes as it is stored.
    return 4 * len(path) <= room or len((_STORED.process_bind_param(path, _DIALECT) or "").encode()) <= room


_STORED, _DIALECT = FsPath(), default.DefaultDialect()


def _unescape(text: str) -> str:
    head, *rest = text.split("\\x")
    return head + "".join(chr(0xDC00 + int(part[:2], 16)) + part[2:] for part in rest)


metadata = MetaData()

files = Table(
    "files",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("feed", Text, nullable=False),
    Column("path", FsPath, nullable=False),
    Column("device", BigInteger, nullable=False),
    Column("inode", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("owner", Text, comment="who works on it now"),
    Column("lease_until", BigInteger),
    Column("queued_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False, comment="not before this time"),
    Column("closed_at", BigInteger, comment="null while open"),
    Column("attempts", Integer, nullable=False, default=0),
    Column("failed_at", BigInteger),
    Column("error", Text, comment="class of the last error"),
    Column("reason", FsPath, comment="the last error in words"),
    Column("grant_url", Text, comment="secret; cleared on delivery"),
    Column("grant_expires_at", BigInteger, comment="on the server's clock"),
    Column("grant_lifetime_ms", BigInteger),
    Column("grant_headers", Text, comment="JSON"),
    Column("md5", String(32)),
    Column("etag", Text),
    Column("verified", Boolean),
    Column("status", Integer),
    Column("request_id", Text),
    Column("origin", Text),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    Column("destination", FsPath, comment="where the file lies now, when we moved it"),
    Column(
        "left_in_place",
        Boolean,
        nullable=False,
        default=False,
        comment="closed, but still in its drop directory",
    ),
    Column("target", Text, comment="the datatable that it was delivered to, where the API has it"),
    Column("duplicate_of", BigInteger, comment="the row that delivered the same content before"),
    Column("root_inode", BigInteger, comment="of the feed's directory when the file was seen"),
    Column("removed_at", BigInteger, comment="when the archived file was deleted, or found to be gone"),
    Column("dropped_at", BigInteger, comment="when the file had changed last, by its ctime"),
    Column(
        "node",
        Text,
        nullable=False,
        server_default="",
        comment="in whose directory the file lies; empty: there is no fleet, or all nodes share the directory",
    ),
    Column("sender", Text, comment="the node that delivered it; null: none did, or there is no fleet"),
    sqlite_autoincrement=True,
)

# A partial index serves a query only where the query says the same words, so these are written once, with literals.
is_open = files.c.closed_at.is_(None)
is_closed = files.c.closed_at.is_not(None)
is_queued = files.c.state == literal_column("'queued'")
is_uploaded = files.c.state == literal_column("'uploaded'")
is_left = files.c.left_in_place.is_(True)
has_content = files.c.md5.is_not(None)
is_rejected = files.c.state == literal_column("'rejected'")

Index(
    "ux_files_open",
    files.c.node,
    files.c.feed,
    files.c.path,
    unique=True,
    sqlite_where=is_open,
    postgresql_where=is_open,
)
Index(
    "ix_files_queue",
    files.c.node,
    files.c.feed,
    files.c.mtime_ns,
    files.c.id,
    sqlite_where=is_queued,
    postgresql_where=is_queued,
)
# What is delivered has an owner until it is moved, so that only what could not be moved is in this index.
waits_for_move = is_uploaded & files.c.owner.is_(None)
Index(
    "ix_files_moves",
    files.c.node,
    files.c.feed,
    files.c.due_at,
    sqlite_where=waits_for_move,
    postgresql_where=waits_for_move,
)
Index("ix_files_due", files.c.due_at, files.c.feed, sqlite_where=is_open, postgresql_where=is_open)
Index("ix_files_left", files.c.node, files.c.feed, files.c.path, sqlite_where=is_left, postgresql_where=is_left)
Index(
    "ix_files_content", files.c.feed, files.c.size, files.c.md5, sqlite_where=has_content, postgresql_where=has_content
)
Index("ix_files_rejected", files.c.feed, sqlite_where=is_rejected, postgresql_where=is_rejected)
is_held = files.c.owner.is_not(None)
# One daemon alone knows by itself what it holds, and does without the cost.
Index("ix_files_held", files.c.owner, files.c.feed, postgresql_where=is_held).ddl_if(dialect="postgresql")
Index("ix_files_closed", files.c.closed_at, sqlite_where=is_closed, postgresql_where=is_closed)

datasets = Table(
    "datasets",
    metadata,
    Column("base_url", Text, primary_key=True),
    Column("tenant_id", Text, primary_key=True),
    Column("datatable_id", Text, primary_key=True),
    Column("dataset_id", Text, nullable=False),
    comment="which dataset holds a datatable, looked up once and kept",
)

feeds = Table(
    "feeds",
    metadata,
    Column("name", Text, primary_key=True),
    Column("node", Text, primary_key=True, server_default="", comment="as in files: feeds of one name are two there"),
    Column("known_at", BigInteger, nullable=False, comment="when it was served first"),
    Column("arrived_at", BigInteger, comment="when a file of it was queued or refused last"),
    Column("delivered_at", BigInteger, comment="when a file of it was delivered last"),
    Column("paused_at", BigInteger, comment="when somebody paused it; null while it is not"),
    Column("stale_at", BigInteger, comment="when it was told that too long no file arrived; null while they arrive"),
    comment="what is known of a feed beyond its files",
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("feed", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("event_id", Text, nullable=False, comment="the same at every try, so that receivers know it again"),
    Column("body", Text, nullable=False, comment="JSON, as it is sent"),
    Column("created_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False, comment="not before this time"),
    Column("refusals", Integer, nullable=False, default=0, comment="how often the receiver did not want it"),
    Column("node", Text, nullable=False, server_default="", comment="who is to tell it; empty: there is no fleet"),
    comment="what is still to be told to the webhooks of feeds",
    sqlite_autoincrement=True,
)
Index("ix_outbox_feed", outbox.c.feed, outbox.c.id)

announced = Table(
    "announced",
    metadata,
    Column("feed", Text, primary_key=True),
    Column("place", Text, primary_key=True),
    Column("node", Text, primary_key=True, server_default="", comment="as in feeds"),
    comment="trouble of feeds that their webhooks were told of, and not yet that it is over",
)

nodes = Table(
    "nodes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("epoch", BigInteger, nullable=False, comment="counts its registrations"),
    Column("started_at", BigInteger, nullable=False, comment="when it registered last"),
    Column("seen_at", BigInteger, nullable=False, comment="its last sign of life, on the database's clock"),
    Column("lease_until", BigInteger, nullable=False, comment="until when it holds what it works on; 0: it is over"),
    Column("version", Text, nullable=False, comment="of tablefeed"),
    Column("feeds", Text, nullable=False, server_default="[]", comment="JSON: the names of those that it serves"),
    Column("troubles", Text, comment="JSON: what is in the way of its feeds, as it told last; null: nothing"),
    comment="the daemons that share this ledger",
)
