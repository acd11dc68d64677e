"""Handles in a holder's hands: read them, and make narrower ones without asking anyone."""

from __future__ import annotations

from keystead.keys.handles import Handle, parse
from keystead.keys.handles import attenuate as _attenuate
from keystead.keys.narrowing import Narrowing, caveats_of

__all__ = ["attenuate", "parse_handle"]


def parse_handle(token: str) -> Handle:
    """Read a token once, to use it many times; it prints as id and purpose only.

    Raises:
        HandleInvalid: not a handle. Whether its tags hold, only the vault can tell.
    """
    return parse(token)


def attenuate(handle: Handle | str, narrowing: Narrowing) -> Handle:
    """A narrower child of a handle (I5): what it allows, its parent allows too.

    Hand it on by its ``reveal()``.

    Raises:
        HandleInvalid: not a handle.
        MalformedRequest: a narrowing that no handle may have, or one too many.
    """
    parent = handle if isinstance(handle, Handle) else parse(handle)
    return _attenuate(parent, *caveats_of(narrowing))
