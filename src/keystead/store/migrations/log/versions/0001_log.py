"""The first schema of one node's log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["downgrade", "upgrade"]

revision = "0001"
down_revision = None

_DENIED = sa.text("outcome <> 'ok'")
_CHANGES = sa.text(
    "op NOT IN ('audit.sign', 'ca.sign', 'data.derive', 'data.mac', 'data.unwrap', 'data.wrap',"
    " 'firmware.sign', 'jwt.sign', 'ledger.append', 'ssh.sign', 'ssh_ca.sign', 'ticket.derive',"
    " 'tls.sign', 'tls.sign_digest', 'vpn.sign', 'vpn.sign_digest')"
)


def upgrade() -> None:
    """Every table, for a new node."""
    op.create_table(
        "records",
        _number("seq", key=True),
        _number("time_ms"),
        _number("epoch"),
        _text("op"),
        _text("outcome"),
        _text("key_id"),
        sa.Column("version", sa.Integer, nullable=False),
        _text("handle_id"),
        _text("principal"),
        _text("request_id"),
        sa.Column("body", sa.LargeBinary, nullable=True),
        sa.Column("salt", sa.LargeBinary, nullable=True),
        sa.Column("entry", sa.LargeBinary, nullable=False),
        sa.Column("leaf", sa.LargeBinary, nullable=False),
        sa.Column("purpose", sa.Text(collation="C"), nullable=False, server_default=sa.text("''")),
    )
    for column in ("key_id", "handle_id", "principal", "request_id"):
        _index(f"records_by_{column}", [column, "seq"], sa.text(f"{column} <> ''"))
    _index("records_refused", ["outcome", "seq"], _DENIED)
    _index("records_denied", [sa.text("(outcome <> 'ok')"), "seq"], _DENIED)
    _index("records_by_change", ["op", "seq"], _CHANGES)
    _index("records_forgotten", ["seq"], sa.text("body IS NULL"))
    op.create_table(
        "log_blocks", _number("block", key=True), _number("first_ms"), _number("last_ms")
    )
    op.create_table(
        "checkpoints",
        _number("size", key=True),
        sa.Column("root", sa.LargeBinary, nullable=False),
        sa.Column("frontier", sa.LargeBinary, nullable=False),
        sa.Column("note", sa.LargeBinary, nullable=False),
        _number("time_ms"),
        sa.Column("mac", sa.LargeBinary, nullable=False),
    )


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(collation="C"), nullable=False)


def _number(name: str, *, key: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, primary_key=key, autoincrement=False, nullable=False)


def _index(name: str, columns: list[str | sa.TextClause], where: sa.TextClause) -> None:
    op.create_index(name, "records", columns, postgresql_where=where)


def downgrade() -> None:
    """There is nothing before the first schema.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError("the first schema has no earlier one; restore a backup instead")
