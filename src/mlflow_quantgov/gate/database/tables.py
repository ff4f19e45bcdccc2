"""Our own tables, beside MLflow's in the same database, without foreign keys to them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Boolean, DateTime, Index, Integer, LargeBinary, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Base of our tables, apart from MLflow's."""


class LedgerRow(Base):
    """One entry of the append-only, hash-chained ledger."""

    __tablename__ = "quantgov_ledger"

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    decision_id: Mapped[str] = mapped_column(String(36), unique=True)
    created_at: Mapped[str] = mapped_column(String(40))
    kind: Mapped[str] = mapped_column(String(40))
    model: Mapped[str | None] = mapped_column(String(256))
    version: Mapped[str | None] = mapped_column(String(20))
    destination: Mapped[str | None] = mapped_column(String(300))
    decision: Mapped[str | None] = mapped_column(String(40))
    actor: Mapped[str | None] = mapped_column(String(300))
    actor_source: Mapped[str | None] = mapped_column(String(40))
    policy_digest: Mapped[str | None] = mapped_column(String(80))
    body: Mapped[str] = mapped_column(Text)
    previous_hash: Mapped[str] = mapped_column(String(64))
    row_hash: Mapped[str] = mapped_column(String(64))
    workspace: Mapped[str | None] = mapped_column(String(63))
    """MLflow's workspace in which the model lies; None for its default one."""

    __table_args__ = (Index("quantgov_ledger_model", "model"),)


class StatementRow(Base):
    """The bytes of one statement, as they were taken in."""

    __tablename__ = "quantgov_statements"

    digest: Mapped[str] = mapped_column(String(80), primary_key=True)
    subject: Mapped[str] = mapped_column(String(80), index=True)
    kind: Mapped[str] = mapped_column(String(40))
    model: Mapped[str] = mapped_column(String(256))
    version: Mapped[str] = mapped_column(String(20))
    version_created: Mapped[int] = mapped_column(BigInteger)
    content: Mapped[bytes] = mapped_column(LargeBinary)
    actor: Mapped[str | None] = mapped_column(String(300))
    actor_source: Mapped[str | None] = mapped_column(String(40))
    received_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    behaviour: Mapped[str | None] = mapped_column(String(80))
    """Of the version that it was attached to, where imported records name none; see `Noted`."""
    parent_behaviour: Mapped[str | None] = mapped_column(String(80))


class SignatureRow(Base):
    """One signature of a statement; the statement's own bytes stand in its row."""

    __tablename__ = "quantgov_signatures"

    digest: Mapped[str] = mapped_column(String(80), primary_key=True)
    statement: Mapped[str] = mapped_column(String(80), index=True)
    key: Mapped[str] = mapped_column(String(200))
    """Id of the key that made it; where no trusted one did, what its writer says."""
    signature: Mapped[bytes] = mapped_column(LargeBinary)
    payload: Mapped[bytes | None] = mapped_column(LargeBinary)
    """What was signed, where that is the statement in another form than its canonical bytes."""
    actor: Mapped[str | None] = mapped_column(String(300))
    actor_source: Mapped[str | None] = mapped_column(String(40))
    received_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class KeysRow(Base):
    """Every file of trusted keys that was ever in force, whole."""

    __tablename__ = "quantgov_keys"

    digest: Mapped[str] = mapped_column(String(80), primary_key=True)
    text: Mapped[str] = mapped_column(Text)
    first_seen: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class PolicyRow(Base):
    """Every policy that was ever in force, whole."""

    __tablename__ = "quantgov_policies"

    digest: Mapped[str] = mapped_column(String(80), primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    text: Mapped[str] = mapped_column(Text)
    first_seen: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class DrawRow(Base):
    """What decides which items of a task evaluation somebody measures again; never drawn a second time."""

    __tablename__ = "quantgov_draws"

    statement: Mapped[str] = mapped_column(String(80), primary_key=True)
    actor: Mapped[str] = mapped_column(String(300), primary_key=True)
    """For whom it was drawn, in the form in which names are compared."""
    seed: Mapped[str] = mapped_column(String(64))
    actor_source: Mapped[str] = mapped_column(String(40))
    drawn_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class FactsRow(Base):
    """What a decision rested on beside the statements: what was read from the files, as it was then."""

    __tablename__ = "quantgov_facts"

    digest: Mapped[str] = mapped_column(String(80), primary_key=True)
    content: Mapped[bytes] = mapped_column(LargeBinary)


class GuardRow(Base):
    """The one row that tells the triggers which policy they enforce."""

    __tablename__ = "quantgov_guard"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    mode: Mapped[str] = mapped_column(String(10))
    """`enforce` or `observe`; the triggers let everything through only at `observe`."""
    policy_digest: Mapped[str] = mapped_column(String(80))
    seq: Mapped[int] = mapped_column(Integer)
    """The ledger row by which this policy came into force; it serves for no second change."""


class RuleRow(Base):
    """One destination of one rule of the policy in force, in a form that the database can match."""

    __tablename__ = "quantgov_rules"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(Integer)
    """Of the rule in the policy; the first that matches a model's name decides."""
    glob: Mapped[str] = mapped_column(Text)
    """For SQLite's GLOB."""
    regex: Mapped[str] = mapped_column(Text)
    """For PostgreSQL's `~`."""
    destination: Mapped[str | None] = mapped_column(String(300))
    """Folded; None for every destination that the rule does not name."""
    is_open: Mapped[bool] = mapped_column(Boolean)
    observes: Mapped[bool] = mapped_column(Boolean)
    """Whether nothing is refused for the rule's models."""


class GrantRow(Base):
    """A change that the gate allows within the transaction that writes this row; gone before that ends."""

    __tablename__ = "quantgov_grants"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    seq: Mapped[int] = mapped_column(Integer)
    """The ledger row that allows it."""
    deed: Mapped[str] = mapped_column(String(10))
    """`set`, `removal` or `rename`: a grant for one is none for another."""
    workspace: Mapped[str] = mapped_column(String(63))
    name: Mapped[str] = mapped_column(String(256))
    destination: Mapped[str] = mapped_column(String(300))
    """`@alias`, a stage in small letters, or `*`."""
    version: Mapped[int] = mapped_column(Integer)
    """-1 for every version."""
    txid: Mapped[int | None] = mapped_column(BigInteger)
    """PostgreSQL: the transaction, written by a trigger."""
