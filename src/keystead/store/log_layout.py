"""What the log's schema and the driver's statements about it agree on."""

from __future__ import annotations

__all__ = ["BLOCK_ROWS", "CHANGES", "DENIED", "FIELDS", "FORGOTTEN"]

BLOCK_ROWS = 1024
"""Records of one row of ``log_blocks``: 10 million make 10,000, read in half a millisecond."""

FIELDS = {"key_id": 1, "handle_id": 2, "principal": 3, "request_id": 4}
"""Columns that ``log_index`` has, by the number it has for each. An empty value is not in it."""

# Conditions of partial indexes. SQLite takes such an index only where its condition stands in the
# query too, in the same words (sqlite.org/partialindex.html section 3).

DENIED = "outcome <> 'ok'"
FORGOTTEN = "body IS NULL"
CHANGES = (
    "op NOT IN ('audit.sign', 'ca.sign', 'data.derive', 'data.mac', 'data.unwrap', 'data.wrap',"
    " 'firmware.sign', 'jwt.sign', 'ledger.append', 'ssh.sign', 'ssh_ca.sign', 'ticket.derive',"
    " 'tls.sign', 'tls.sign_digest', 'vpn.sign', 'vpn.sign_digest')"
)
"""All but the uses of keys, of which there are so many that an index by operation helps nobody. A
use that is not listed costs its place in that index, and is found all the same."""
