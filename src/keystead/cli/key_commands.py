"""``keystead key`` with all its commands: each module registers its own when it is loaded."""

from __future__ import annotations

from keystead.cli import key, revoke, rollout, rollout_evidence, rollout_plan, rollout_status
from keystead.cli.key import app

__all__ = [
    "app",
    "key",
    "revoke",
    "rollout",
    "rollout_evidence",
    "rollout_plan",
    "rollout_status",
]
