"""What every command of an operator is: a struct that names itself in its field ``do``."""

from __future__ import annotations

import msgspec

__all__ = ["CommandBase"]


class CommandBase(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do"
):
    """Base of all commands; each has its own tag, which records name, too."""
