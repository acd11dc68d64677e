"""``keystead log``: the group. Its commands are in modules that ``log_commands`` names."""

from __future__ import annotations

from keystead.cli.command import group

__all__ = ["app"]

app = group("log", "Search, prove, disclose and forget records of every use, denial and change.")
