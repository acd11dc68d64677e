"""The first schema of what all nodes share."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["downgrade", "upgrade"]

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Every table, for a new deployment."""
    _create_authority()
    _create_history()
    _create_uses()
    _create_nodes()


def _text(name: str, *, key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(collation="C"), primary_key=key, nullable=False)


def _number(name: str, *, key: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, primary_key=key, autoincrement=False, nullable=False)


def _bytes(name: str, *, nullable: bool = False) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, nullable=nullable)


def _create_authority() -> None:
    op.create_table("meta", _text("name", key=True), _bytes("value"))
    op.create_table(
        "epoch",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        _number("epoch"),
        _bytes("root"),
        _bytes("mac"),
    )
    op.create_table(
        "objects",
        _text("kind", key=True),
        _text("id", key=True),
        _text("name"),
        _number("revision"),
        _number("epoch"),
        _bytes("doc"),
        _bytes("mac"),
        sa.UniqueConstraint("kind", "name"),
    )
    op.create_index("ix_objects_epoch", "objects", ["epoch"])
    op.create_table(
        "materials",
        _text("key_id", key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        _bytes("sealed"),
    )
    op.create_table("tenant_keys", _text("tenant", key=True), _bytes("sealed"))
    op.create_table(
        "handles",
        _text("id", key=True),
        _text("key_id"),
        _text("tenant"),
        _text("principal"),
        _number("issued_ms"),
        _bytes("mac"),
    )
    op.create_index("ix_handles_key_id", "handles", ["key_id"])


def _create_history() -> None:
    op.create_table(
        "object_history",
        _text("kind", key=True),
        _text("id", key=True),
        _text("name"),
        _number("revision", key=True),
        _number("epoch"),
        _number("seq"),
        _number("time_ms"),
        _bytes("doc"),
        _bytes("mac"),
    )
    op.create_index("history_newest", "object_history", ["epoch", "kind", "id", "revision"])
    op.create_index(
        "history_by_object",
        "object_history",
        ["id", "kind", "revision", "epoch", "seq", "time_ms"],
    )


def _create_uses() -> None:
    op.create_table(
        "idempotency",
        _text("scope", key=True),
        _text("key", key=True),
        _bytes("fingerprint"),
        _number("seq"),
        _bytes("result", nullable=True),
        _bytes("receipt"),
        _number("expires_ms"),
    )
    op.create_index("ix_idempotency_expires_ms", "idempotency", ["expires_ms"])
    op.create_table("spent", _text("link", key=True), _number("uses"))
    op.create_table("counters", _text("key_id", key=True), _text("name", key=True), _bytes("value"))


def _create_nodes() -> None:
    op.create_table(
        "reservations",
        _text("id", key=True),
        _text("node"),
        _text("key_id"),
        _number("epoch"),
        _number("count"),
        _number("expires_boot_ms"),
        _number("opened_seq"),
        sa.Column("closed", sa.Boolean, nullable=False),
    )
    op.create_index(
        "reservations_open", "reservations", ["node"], postgresql_where=sa.text("NOT closed")
    )
    op.create_table(
        "nodes",
        _text("node", key=True),
        _number("seen_epoch"),
        _number("beat"),
        _text("url"),
        _bytes("mac"),
    )
    op.create_table(
        "leases",
        _text("name", key=True),
        _text("holder"),
        _number("fence"),
        _number("beat"),
        _bytes("mac"),
    )


def downgrade() -> None:
    """There is nothing before the first schema.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError("the first schema has no earlier one; restore a backup instead")
