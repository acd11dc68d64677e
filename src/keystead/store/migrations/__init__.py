"""Alembic's scripts: each revision is backward-compatible with the binary before it (M20)."""
