"""Which node of a fleet delivered a file, kept when nobody holds its row any more."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column. It has no default, so that no row is written for it, however many there are."""
    op.add_column(
        "files",
        sa.Column("sender", sa.Text, comment="the node that delivered it; null: none did, or there is no fleet"),
    )
