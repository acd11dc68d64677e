"""The log's index by key, handle, principal and request, kept behind the commits."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["downgrade", "upgrade"]

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add it, empty: commits fill it piece by piece, and searches are right meanwhile."""
    op.create_table(
        "log_index",
        sa.Column("field", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("value", sa.Text, primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "log_indexed",
        sa.Column("field", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("through", sa.BigInteger, nullable=False),
    )
    op.execute("INSERT INTO log_indexed (field, through) VALUES (1, -1), (2, -1), (3, -1), (4, -1)")
    for name in ("key", "handle", "principal", "request"):
        op.drop_index(f"records_by_{name}", "records")


def downgrade() -> None:
    """Older versions keep no such index, so it would lack what they append.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError("restore the backup from before instead")
