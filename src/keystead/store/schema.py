"""The tables, as SQLAlchemy Core has them; migrations bring a database to exactly these.

Imported by migrations and tests only: the vault's process talks to its database by the driver.
"""

from __future__ import annotations

import sqlalchemy as sa

__all__ = ["METADATA"]

METADATA = sa.MetaData()

sa.Table(
    "meta",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)
sa.Table(
    "epoch",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("root", sa.LargeBinary, nullable=False),
    sa.Column("mac", sa.LargeBinary, nullable=False),
)
sa.Table(
    "objects",
    METADATA,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False, index=True),
    sa.Column("doc", sa.LargeBinary, nullable=False),
    sa.Column("mac", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("kind", "name"),
)
sa.Table(
    "materials",
    METADATA,
    sa.Column("key_id", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
)
sa.Table(
    "tenant_keys",
    METADATA,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
)
sa.Table(
    "handles",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("key_id", sa.Text, nullable=False, index=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("principal", sa.Text, nullable=False),
    sa.Column("issued_ms", sa.BigInteger, nullable=False),
    sa.Column("mac", sa.LargeBinary, nullable=False),
)
sa.Table(
    "records",
    METADATA,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("time_ms", sa.BigInteger, nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("op", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("key_id", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("handle_id", sa.Text, nullable=False),
    sa.Column("principal", sa.Text, nullable=False),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=True),
    sa.Column("salt", sa.LargeBinary, nullable=True),
    sa.Column("entry", sa.LargeBinary, nullable=False),
    sa.Column("leaf", sa.LargeBinary, nullable=False),
    sa.Index("records_by_key", "key_id", "seq"),
    sa.Index("records_by_handle", "handle_id", "seq"),
    sa.Index(
        "records_refused",
        "outcome",
        "seq",
        sqlite_where=sa.text("outcome <> 'ok'"),
        postgresql_where=sa.text("outcome <> 'ok'"),
    ),
)
sa.Table(
    "idempotency",
    METADATA,
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.LargeBinary, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("result", sa.LargeBinary, nullable=True),
    sa.Column("receipt", sa.LargeBinary, nullable=False),
    sa.Column("expires_ms", sa.BigInteger, nullable=False, index=True),
    sqlite_with_rowid=False,
)
sa.Table(
    "spent",
    METADATA,
    sa.Column("link", sa.Text, primary_key=True),
    sa.Column("uses", sa.BigInteger, nullable=False),
)
sa.Table(
    "counters",
    METADATA,
    sa.Column("key_id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)
sa.Table(
    "reservations",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("node", sa.Text, nullable=False),
    sa.Column("key_id", sa.Text, nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("expires_boot_ms", sa.BigInteger, nullable=False),
    sa.Column("opened_seq", sa.BigInteger, nullable=False),
    sa.Column("closed", sa.Boolean, nullable=False),
)
