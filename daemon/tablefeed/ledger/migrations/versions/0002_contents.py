"""Where a file was delivered to, what it repeats, and when its archived copy was removed."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns, and the index that finds content delivered before."""
    op.add_column(
        "files", sa.Column("target", sa.Text, comment="the datatable that it was delivered to, where the API has it")
    )
    op.add_column(
        "files", sa.Column("duplicate_of", sa.BigInteger, comment="the row that delivered the same content before")
    )
    op.add_column(
        "files", sa.Column("root_inode", sa.BigInteger, comment="of the feed's directory when the file was seen")
    )
    op.add_column(
        "files",
        sa.Column("removed_at", sa.BigInteger, comment="when the archived file was deleted, or found to be gone"),
    )
    has_content = sa.column("md5").is_not(None)
    op.create_index(
        "ix_files_content",
        "files",
        ["feed", "size", "md5"],
        sqlite_where=has_content,
        postgresql_where=has_content,
    )
