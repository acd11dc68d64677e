"""Nodes and who of them leads."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["downgrade", "upgrade"]

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add them, empty: each node writes its row by itself, and the first one leads."""
    op.create_table(
        "nodes",
        sa.Column("node", sa.Text, primary_key=True),
        sa.Column("seen_epoch", sa.BigInteger, nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("mac", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False),
        sa.Column("mac", sa.LargeBinary, nullable=False),
    )
    op.create_index(
        "reservations_open", "reservations", ["node"], sqlite_where=sa.text("NOT closed")
    )


def downgrade() -> None:
    """Nothing else holds them.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError("restore the backup from before instead")
