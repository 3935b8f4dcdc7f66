"""Feeds of one name on several nodes, each with a directory of its own, are known one by one."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make both tables anew, since their keys change; they hold no more rows than there are feeds."""
    _made_anew(
        "feeds",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column(
            "node", sa.Text, primary_key=True, server_default="", comment="as in files: feeds of one name are two there"
        ),
        sa.Column("known_at", sa.BigInteger, nullable=False, comment="when it was served first"),
        sa.Column("arrived_at", sa.BigInteger, comment="when a file of it was queued or refused last"),
        sa.Column("delivered_at", sa.BigInteger, comment="when a file of it was delivered last"),
        sa.Column("paused_at", sa.BigInteger, comment="when somebody paused it; null while it is not"),
        sa.Column(
            "stale_at", sa.BigInteger, comment="when it was told that too long no file arrived; null while they arrive"
        ),
        comment="what is known of a feed beyond its files",
    )
    _made_anew(
        "announced",
        sa.Column("feed", sa.Text, primary_key=True),
        sa.Column("place", sa.Text, primary_key=True),
        sa.Column("node", sa.Text, primary_key=True, server_default="", comment="as in feeds"),
        comment="trouble of feeds that their webhooks were told of, and not yet that it is over",
    )


def _made_anew(name: str, *columns: sa.Column[object], comment: str) -> None:
    conn = op.get_bind()
    before = [column.name for column in columns if column.name != "node"]
    rows = [dict(row) for row in conn.execute(sa.select(sa.table(name, *map(sa.column, before)))).mappings()]
    op.drop_table(name)
    table = op.create_table(name, *columns, comment=comment)
    op.bulk_insert(table, rows)
