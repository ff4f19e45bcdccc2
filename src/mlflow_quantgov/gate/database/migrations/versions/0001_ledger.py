"""Ledger, statements and policies."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "quantgov_ledger",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("decision_id", sa.String(36), nullable=False, unique=True),
        sa.Column("created_at", sa.String(40), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("model", sa.String(256)),
        sa.Column("version", sa.String(20)),
        sa.Column("destination", sa.String(300)),
        sa.Column("decision", sa.String(40)),
        sa.Column("actor", sa.String(300)),
        sa.Column("actor_source", sa.String(40)),
        sa.Column("policy_digest", sa.String(80)),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("previous_hash", sa.String(64), nullable=False),
        sa.Column("row_hash", sa.String(64), nullable=False),
    )
    op.create_index("quantgov_ledger_model", "quantgov_ledger", ["model"])
    op.create_table(
        "quantgov_statements",
        sa.Column("digest", sa.String(80), primary_key=True),
        sa.Column("subject", sa.String(80), nullable=False, index=True),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("model", sa.String(256), nullable=False),
        sa.Column("version", sa.String(20), nullable=False),
        sa.Column("version_created", sa.BigInteger, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("actor", sa.String(300)),
        sa.Column("actor_source", sa.String(40)),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "quantgov_policies",
        sa.Column("digest", sa.String(80), primary_key=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("first_seen", sa.DateTime(timezone=True), nullable=False),
    )
