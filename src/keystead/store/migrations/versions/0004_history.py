"""The history of authority rows: every revision, for good."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["downgrade", "upgrade"]

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add it; what is in force now is its first entry, from before there was a history."""
    op.create_table(
        "object_history",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("time_ms", sa.BigInteger, nullable=False),
        sa.Column("doc", sa.LargeBinary, nullable=False),
        sa.Column("mac", sa.LargeBinary, nullable=False),
    )
    op.execute(
        "INSERT INTO object_history (kind, id, name, revision, epoch, seq, time_ms, doc, mac)"
        " SELECT kind, id, name, revision, epoch, -1, 0, doc, mac FROM objects"
    )
    op.create_index("history_newest", "object_history", ["epoch", "kind", "id", "revision"])
    op.create_index(
        "history_by_object",
        "object_history",
        ["id", "kind", "revision", "epoch", "seq", "time_ms"],
    )


def downgrade() -> None:
    """A history that ends in between tells less than it seems to.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError("restore the backup from before instead")
