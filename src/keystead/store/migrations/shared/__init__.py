"""Revisions of what all nodes share on PostgreSQL, in order."""
