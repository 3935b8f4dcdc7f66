"""What is in the way of a node's feeds, so that any other can show it."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the column: nodes of before have told of nothing."""
    op.add_column(
        "nodes",
        sa.Column("troubles", sa.Text, comment="JSON: what is in the way of its feeds, as it told last; null: nothing"),
    )
