"""Signatures of statements, and the keys that were trusted."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "quantgov_signatures",
        sa.Column("digest", sa.String(80), primary_key=True),
        sa.Column("statement", sa.String(80), nullable=False, index=True),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.Column("payload", sa.LargeBinary),
        sa.Column("actor", sa.String(300)),
        sa.Column("actor_source", sa.String(40)),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "quantgov_keys",
        sa.Column("digest", sa.String(80), primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("first_seen", sa.DateTime(timezone=True), nullable=False),
    )
