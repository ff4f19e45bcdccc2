"""Our own tables, beside MLflow's in the same database, without foreign keys to them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, DateTime, Index, Integer, LargeBinary, String, Text
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
