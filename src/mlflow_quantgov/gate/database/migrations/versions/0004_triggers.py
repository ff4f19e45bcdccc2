"""What the triggers read, the workspace of a ledger row, the facts that a decision rested on, and whose imported records are."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("quantgov_ledger", sa.Column("workspace", sa.String(63)))
    op.add_column("quantgov_statements", sa.Column("behaviour", sa.String(80)))
    op.add_column("quantgov_statements", sa.Column("parent_behaviour", sa.String(80)))
    op.create_table(
        "quantgov_facts",
        sa.Column("digest", sa.String(80), primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "quantgov_guard",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("mode", sa.String(10), nullable=False),
        sa.Column("policy_digest", sa.String(80), nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
    )
    op.create_table(
        "quantgov_rules",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("glob", sa.Text, nullable=False),
        sa.Column("regex", sa.Text, nullable=False),
        sa.Column("destination", sa.String(300)),
        sa.Column("is_open", sa.Boolean, nullable=False),
        sa.Column("observes", sa.Boolean, nullable=False),
    )
    op.create_table(
        "quantgov_grants",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("deed", sa.String(10), nullable=False),
        sa.Column("workspace", sa.String(63), nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("destination", sa.String(300), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("txid", sa.BigInteger),
    )
