"""The append-only log as pure values: record bodies, entries, leaf hashes."""
