"""Revisions of one node's log on PostgreSQL, in order."""
