"""What waits for its move is found without a look at all that waits to be sent."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the index."""
    is_uploaded = sa.column("state") == sa.literal_column("'uploaded'")
    waits_for_move = is_uploaded & sa.column("owner").is_(None)
    op.create_index(
        "ix_files_moves",
        "files",
        ["feed", "due_at"],
        sqlite_where=waits_for_move,
        postgresql_where=waits_for_move,
    )
