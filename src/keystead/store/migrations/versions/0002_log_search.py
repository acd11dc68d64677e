"""What searches of the log need: a column, indexes, and the times of each block of records."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa
from alembic import op

__all__ = ["downgrade", "upgrade"]

revision = "0002"
down_revision = "0001"

_BATCH = 10_000
_USES = sa.text(
    "op NOT IN ('audit.sign', 'ca.sign', 'data.derive', 'data.mac', 'data.unwrap', 'data.wrap',"
    " 'firmware.sign', 'jwt.sign', 'ledger.append', 'ssh.sign', 'ssh_ca.sign', 'ticket.derive',"
    " 'tls.sign', 'tls.sign_digest', 'vpn.sign', 'vpn.sign_digest')"
)


class _Body(msgspec.Struct, frozen=True):
    purpose: str = ""


def upgrade() -> None:
    """Add them, and fill them from what is there."""
    op.add_column(
        "records", sa.Column("purpose", sa.Text, nullable=False, server_default=sa.text("''"))
    )
    op.create_table(
        "log_blocks",
        sa.Column("block", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("first_ms", sa.BigInteger, nullable=False),
        sa.Column("last_ms", sa.BigInteger, nullable=False),
    )
    _fill_purposes()
    op.execute(
        "INSERT INTO log_blocks (block, first_ms, last_ms)"
        " SELECT seq / 1024, min(time_ms), max(time_ms) FROM records GROUP BY 1"
    )
    _create_index("records_by_principal", ["principal", "seq"], sa.text("principal <> ''"))
    _create_index("records_by_request", ["request_id", "seq"], sa.text("request_id <> ''"))
    _create_index("records_by_change", ["op", "seq"], _USES)
    _create_index("records_denied", ["seq"], sa.text("outcome <> 'ok'"))
    _create_index("records_forgotten", ["seq"], sa.text("body IS NULL"))


def _create_index(name: str, columns: list[str], where: sa.TextClause) -> None:
    op.create_index(name, "records", columns, sqlite_where=where, postgresql_where=where)


def _fill_purposes() -> None:
    """From the bodies, a batch at a time; one that does not parse is left to whoever verifies."""
    connection = op.get_bind()
    read = sa.text(
        "SELECT seq, body FROM records WHERE seq > :after AND body IS NOT NULL ORDER BY seq"
        " LIMIT :most"
    )
    write = sa.text("UPDATE records SET purpose = :purpose WHERE seq = :seq")
    after = -1
    while rows := connection.execute(read, {"after": after, "most": _BATCH}).all():
        after = rows[-1].seq
        named = [
            {"seq": row.seq, "purpose": purpose} for row in rows if (purpose := _purpose(row.body))
        ]
        if named:
            connection.execute(write, named)


def _purpose(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_Body).purpose
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ""


def downgrade() -> None:
    """Older versions know no forgotten records."""
    raise NotImplementedError("older versions cannot read this schema; restore a backup instead")
