"""What is known of feeds, what their webhooks are still to be told, and when files were dropped."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the tables, and the index that counts refused files."""
    op.add_column(
        "files", sa.Column("dropped_at", sa.BigInteger, comment="when the file had changed last, by its ctime")
    )
    is_rejected = sa.column("state") == sa.literal_column("'rejected'")
    op.create_index("ix_files_rejected", "files", ["feed"], sqlite_where=is_rejected, postgresql_where=is_rejected)
    op.create_table(
        "feeds",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("known_at", sa.BigInteger, nullable=False, comment="when it was served first"),
        sa.Column("arrived_at", sa.BigInteger, comment="when a file of it was queued or refused last"),
        sa.Column("delivered_at", sa.BigInteger, comment="when a file of it was delivered last"),
        sa.Column("paused_at", sa.BigInteger, comment="when somebody paused it; null while it is not"),
        sa.Column(
            "stale_at", sa.BigInteger, comment="when it was told that too long no file arrived; null while they arrive"
        ),
        comment="what is known of a feed beyond its files",
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("feed", sa.Text, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column(
            "event_id", sa.Text, nullable=False, comment="the same at every try, so that receivers know it again"
        ),
        sa.Column("body", sa.Text, nullable=False, comment="JSON, as it is sent"),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False, comment="not before this time"),
        sa.Column("refusals", sa.Integer, nullable=False, comment="how often the receiver did not want it"),
        comment="what is still to be told to the webhooks of feeds",
        sqlite_autoincrement=True,
    )
    op.create_index("ix_outbox_feed", "outbox", ["feed", "id"])
    op.create_table(
        "announced",
        sa.Column("feed", sa.Text, primary_key=True),
        sa.Column("place", sa.Text, primary_key=True),
        comment="trouble of feeds that their webhooks were told of, and not yet that it is over",
    )
