"""Several daemons on one ledger: who they are, and which files lie in whose directory."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the table and the column, and let the indexes begin with it."""
    op.create_table(
        "nodes",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("epoch", sa.BigInteger, nullable=False, comment="counts its registrations"),
        sa.Column("started_at", sa.BigInteger, nullable=False, comment="when it registered last"),
        sa.Column("seen_at", sa.BigInteger, nullable=False, comment="its last sign of life, on the database's clock"),
        sa.Column(
            "lease_until", sa.BigInteger, nullable=False, comment="until when it holds what it works on; 0: it is over"
        ),
        sa.Column("version", sa.Text, nullable=False, comment="of tablefeed"),
        sa.Column(
            "feeds", sa.Text, nullable=False, server_default="[]", comment="JSON: the names of those that it serves"
        ),
        comment="the daemons that share this ledger",
    )
    op.add_column(
        "files",
        sa.Column(
            "node",
            sa.Text,
            nullable=False,
            server_default="",
            comment="in whose directory the file lies; empty: there is no fleet, or all nodes share the directory",
        ),
    )
    op.add_column(
        "outbox",
        sa.Column(
            "node", sa.Text, nullable=False, server_default="", comment="who is to tell it; empty: there is no fleet"
        ),
    )
    is_open = sa.column("closed_at").is_(None)
    is_queued = sa.column("state") == sa.literal_column("'queued'")
    waits_for_move = (sa.column("state") == sa.literal_column("'uploaded'")) & sa.column("owner").is_(None)
    for name, columns, where, unique in (
        ("ux_files_open", ["node", "feed", "path"], is_open, True),
        ("ix_files_queue", ["node", "feed", "mtime_ns", "id"], is_queued, False),
        ("ix_files_moves", ["node", "feed", "due_at"], waits_for_move, False),
        ("ix_files_left", ["node", "feed", "path"], sa.column("left_in_place").is_(True), False),
    ):
        op.drop_index(name, "files")
        op.create_index(name, "files", columns, unique=unique, sqlite_where=where, postgresql_where=where)
    if op.get_bind().dialect.name == "postgresql":
        # Names are in order by their bytes, as SQLite and Python have it, whatever language the database speaks.
        op.execute('ALTER TABLE files ALTER COLUMN path TYPE text COLLATE "C"')
        op.create_index("ix_files_held", "files", ["owner", "feed"], postgresql_where=sa.column("owner").is_not(None))
