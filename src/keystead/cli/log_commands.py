"""``keystead log`` with all its commands: each module registers its own when it is loaded."""

from __future__ import annotations

from keystead.cli import evidence, fsck, log_forget, log_search, reconcile, witness
from keystead.cli.log import app

__all__ = ["app", "evidence", "fsck", "log_forget", "log_search", "reconcile"]

app.add_typer(witness.app)
