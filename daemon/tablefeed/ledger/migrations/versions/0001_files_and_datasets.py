"""The first ledger: files and datasets."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables and their indexes."""
    op.create_table(
        "files",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("feed", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("device", sa.BigInteger, nullable=False),
        sa.Column("inode", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("mtime_ns", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("owner", sa.Text, comment="who works on it now"),
        sa.Column("lease_until", sa.BigInteger),
        sa.Column("queued_at", sa.BigInteger, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False, comment="not before this time"),
        sa.Column("closed_at", sa.BigInteger, comment="null while open"),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("failed_at", sa.BigInteger),
        sa.Column("error", sa.Text, comment="class of the last error"),
        sa.Column("reason", sa.Text, comment="the last error in words"),
        sa.Column("grant_url", sa.Text, comment="secret; cleared on delivery"),
        sa.Column("grant_expires_at", sa.BigInteger, comment="on the server's clock"),
        sa.Column("grant_lifetime_ms", sa.BigInteger),
        sa.Column("grant_headers", sa.Text, comment="JSON"),
        sa.Column("md5", sa.String(32)),
        sa.Column("etag", sa.Text),
        sa.Column("verified", sa.Boolean),
        sa.Column("status", sa.Integer),
        sa.Column("request_id", sa.Text),
        sa.Column("origin", sa.Text),
        sa.Column("started_at", sa.BigInteger),
        sa.Column("finished_at", sa.BigInteger),
        sa.Column("destination", sa.Text, comment="where the file lies now, when we moved it"),
        sa.Column("left_in_place", sa.Boolean, nullable=False, comment="closed, but still in its drop directory"),
        sqlite_autoincrement=True,
    )
    is_open = sa.column("closed_at").is_(None)
    _index("ux_files_open", ["feed", "path"], is_open, unique=True)
    _index("ix_files_queue", ["feed", "mtime_ns", "id"], sa.column("state") == sa.literal_column("'queued'"))
    _index("ix_files_due", ["due_at", "feed"], is_open)
    _index("ix_files_left", ["feed", "path"], sa.column("left_in_place").is_(True))
    _index("ix_files_closed", ["closed_at"], sa.column("closed_at").is_not(None))
    op.create_table(
        "datasets",
        sa.Column("base_url", sa.Text, primary_key=True),
        sa.Column("tenant_id", sa.Text, primary_key=True),
        sa.Column("datatable_id", sa.Text, primary_key=True),
        sa.Column("dataset_id", sa.Text, nullable=False),
        comment="which dataset holds a datatable, looked up once and kept",
    )


def _index(name: str, columns: list[str], where: sa.ColumnElement[bool], *, unique: bool = False) -> None:
    op.create_index(name, "files", columns, unique=unique, sqlite_where=where, postgresql_where=where)
