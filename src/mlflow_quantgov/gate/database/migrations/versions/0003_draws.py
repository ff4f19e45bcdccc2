"""Draws of items for spot-checks."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "quantgov_draws",
        sa.Column("statement", sa.String(80), primary_key=True),
        sa.Column("actor", sa.String(300), primary_key=True),
        sa.Column("seed", sa.String(64), nullable=False),
        sa.Column("actor_source", sa.String(40), nullable=False),
        sa.Column("drawn_at", sa.DateTime(timezone=True), nullable=False),
    )
