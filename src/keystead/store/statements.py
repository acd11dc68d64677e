"""Statements that SQLite and PostgreSQL share, as SQLite's driver takes them: ``?`` binds a value.

What is not here is said differently on each, or only on one.
"""

from __future__ import annotations

from keystead.ports import IdempotencyRow, RecordRow

__all__ = [
    "CHANGE_OBJECT",
    "CHECKPOINT_COLUMNS",
    "COUNTER",
    "COUNT_IDEMPOTENT",
    "DROP_MATERIAL",
    "ENTRIES_FROM",
    "EPOCH",
    "IDEMPOTENT",
    "IDEMPOTENT_COLUMNS",
    "KEEP_REVISION",
    "LAST_SEQUENCE",
    "LEASE",
    "NEW_OBJECT",
    "OBJECTS",
    "OBJECTS_SINCE",
    "OPEN_RESERVATIONS",
    "PRUNE_CHECKPOINTS",
    "PRUNE_IDEMPOTENT",
    "PUT_CHECKPOINT",
    "PUT_COUNTER",
    "PUT_HANDLE",
    "PUT_LEASE",
    "PUT_MATERIAL",
    "PUT_META",
    "PUT_NODE",
    "PUT_RESERVATION",
    "PUT_SPENT",
    "PUT_TENANT_KEY",
    "RECORDS_FROM",
    "RECORD_COLUMNS",
    "SET_EPOCH",
    "SPENT",
    "TENANT_KEY",
]

RECORD_COLUMNS = ", ".join(RecordRow.__struct_fields__)
IDEMPOTENT_COLUMNS = ", ".join(IdempotencyRow.__struct_fields__)
CHECKPOINT_COLUMNS = "size, root, frontier, note, time_ms, mac"
_OBJECT_COLUMNS = "kind, id, name, revision, epoch, doc, mac"

# --- read ----------------------------------------------------------------------------------------

EPOCH = "SELECT epoch, root, mac FROM epoch WHERE id = 1"
OBJECTS = f"SELECT {_OBJECT_COLUMNS} FROM objects"  # noqa: S608  constants, values are bound
OBJECTS_SINCE = f"{OBJECTS} WHERE epoch > ?"
TENANT_KEY = "SELECT sealed FROM tenant_keys WHERE tenant = ?"
LAST_SEQUENCE = "SELECT coalesce(max(seq), -1) FROM records"
IDEMPOTENT = f"SELECT {IDEMPOTENT_COLUMNS} FROM idempotency WHERE scope = ? AND key = ?"  # noqa: S608  as above
COUNT_IDEMPOTENT = "SELECT count(*) FROM idempotency WHERE scope = ?"
SPENT = "SELECT uses FROM spent WHERE link = ?"
COUNTER = "SELECT value FROM counters WHERE key_id = ? AND name = ?"
LEASE = "SELECT name, holder, fence, beat, mac FROM leases WHERE name = ?"
RECORDS_FROM = f"SELECT {RECORD_COLUMNS} FROM records WHERE seq >= ? ORDER BY seq LIMIT ?"  # noqa: S608  as above
ENTRIES_FROM = (
    "SELECT seq, epoch, salt, body, entry, leaf FROM records WHERE seq >= ? ORDER BY seq LIMIT ?"
)
OPEN_RESERVATIONS = (
    "SELECT id, node, key_id, epoch, count, expires_boot_ms, opened_seq, closed"
    " FROM reservations WHERE NOT closed"
)

# --- written -------------------------------------------------------------------------------------

SET_EPOCH = (
    "INSERT INTO epoch (id, epoch, root, mac) VALUES (1,?,?,?) ON CONFLICT (id) DO UPDATE"
    " SET epoch = excluded.epoch, root = excluded.root, mac = excluded.mac"
)
NEW_OBJECT = f"INSERT INTO objects ({_OBJECT_COLUMNS}) VALUES (?,?,?,?,?,?,?)"  # noqa: S608  as above
CHANGE_OBJECT = (
    "UPDATE objects SET name = ?, revision = ?, epoch = ?, doc = ?, mac = ?"
    " WHERE kind = ? AND id = ? AND revision = ?"
)
KEEP_REVISION = (
    "INSERT INTO object_history (kind, id, name, revision, epoch, seq, time_ms, doc, mac)"
    " VALUES (?,?,?,?,?,?,?,?,?) ON CONFLICT (kind, id, revision) DO NOTHING"
)
PUT_META = "INSERT INTO meta (name, value) VALUES (?,?)"
PUT_MATERIAL = "INSERT INTO materials (key_id, version, sealed) VALUES (?,?,?)"
DROP_MATERIAL = "DELETE FROM materials WHERE key_id = ? AND version = ?"
PUT_TENANT_KEY = "INSERT INTO tenant_keys (tenant, sealed) VALUES (?,?)"
PUT_HANDLE = (
    "INSERT INTO handles (id, key_id, tenant, principal, issued_ms, mac) VALUES (?,?,?,?,?,?)"
)
PUT_SPENT = (
    "INSERT INTO spent (link, uses) VALUES (?,?)"
    " ON CONFLICT (link) DO UPDATE SET uses = excluded.uses"
)
PUT_COUNTER = (
    "INSERT INTO counters (key_id, name, value) VALUES (?,?,?)"
    " ON CONFLICT (key_id, name) DO UPDATE SET value = excluded.value"
)
PUT_RESERVATION = (
    "INSERT INTO reservations (id, node, key_id, epoch, count, expires_boot_ms, opened_seq,"
    " closed) VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET closed = excluded.closed"
)
PUT_NODE = (
    "INSERT INTO nodes (node, seen_epoch, beat, url, mac) VALUES (?,?,?,?,?)"
    " ON CONFLICT (node) DO UPDATE SET seen_epoch = excluded.seen_epoch,"
    " beat = excluded.beat, url = excluded.url, mac = excluded.mac"
)
PUT_LEASE = (
    "INSERT INTO leases (name, holder, fence, beat, mac) VALUES (?,?,?,?,?)"
    " ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, fence = excluded.fence,"
    " beat = excluded.beat, mac = excluded.mac"
)
PUT_CHECKPOINT = (
    f"INSERT INTO checkpoints ({CHECKPOINT_COLUMNS}) VALUES (?,?,?,?,?,?)"  # noqa: S608  as above
    " ON CONFLICT (size) DO NOTHING"
)
PRUNE_IDEMPOTENT = (
    "DELETE FROM idempotency WHERE (scope, key) IN"
    " (SELECT scope, key FROM idempotency WHERE expires_ms <= ? LIMIT ?)"
)
PRUNE_CHECKPOINTS = (
    "DELETE FROM checkpoints WHERE size IN (SELECT size FROM checkpoints AS old"
    " WHERE time_ms < ? AND EXISTS (SELECT 1 FROM checkpoints AS later"
    " WHERE later.size > old.size AND later.time_ms / 3600000 = old.time_ms / 3600000)"
    " ORDER BY size LIMIT ?)"
)
