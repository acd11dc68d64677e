"""Whether a tenant is stopped in an emergency: the one question that admission and commit ask."""

from __future__ import annotations

from keystead.errors import KeyStateError

__all__ = ["EVERYTHING", "check_not_stopped", "is_stopped"]

EVERYTHING = "*"
"""In place of a tenant's name, which it cannot be: all tenants."""


def is_stopped(tenant: str, stopped: frozenset[str]) -> bool:
    """Whether an emergency stop is in force for a tenant; ``stopped``: those that are in force."""
    return bool(stopped) and (EVERYTHING in stopped or tenant in stopped)


def check_not_stopped(tenant: str, stopped: frozenset[str]) -> None:
    """Nothing of a stopped tenant is used or started.

    Raises:
        KeyStateError: an emergency stop is in force.
    """
    if is_stopped(tenant, stopped):
        of = "all tenants" if EVERYTHING in stopped else f"tenant {tenant}"
        raise KeyStateError(
            f"an emergency stop is in force for {of}: no key is used and nothing is started",
            hint="`keystead emergency status` shows since when, by whom and why; the log has the"
            " record",
        )
