"""Verified handles by their token, as many as the limit allows, and whom each was issued to."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from keystead import limits
from keystead.errors import HandleInvalid
from keystead.keys.caveats import Rate, Uses
from keystead.keys.handles import Grant, parse, verify
from keystead.ports import HandleRow, Registry
from keystead.vault.macs import VaultSecrets

__all__ = ["Grants", "Held"]


class Held(msgspec.Struct, frozen=True):
    """A verified handle, whom it was issued to, and its budgets by kind."""

    grant: Grant
    issued: HandleRow
    uses: tuple[tuple[str, int], ...]
    rates: tuple[tuple[str, Rate], ...]


class Grants:
    """A cache of what does not change: tags, caveats, issue. Revocation is checked at each use."""

    def __init__(self, secrets: VaultSecrets, registry: Registry) -> None:
        self._secrets = secrets
        self._registry = registry
        self._held: OrderedDict[str, Held] = OrderedDict()

    def get(self, token: str) -> Held:
        """The verified handle of a token.

        Raises:
            HandleInvalid: not a handle of this deployment.
            StateRolledBack: its row was altered.
        """
        held = self._held.get(token)
        if held is not None:
            self._held.move_to_end(token)
            return held
        handle = parse(token)
        body = handle.body
        grant = verify(self._secrets.handle_root(body.key_id, body.generation), handle)
        issued = self._registry.handle(body.handle_id)
        if issued is None:
            raise HandleInvalid(
                "the handle is genuine, but this registry does not know that it was issued",
                hint="The registry may be older than the handle: see whether a backup was restored",
            )
        self._secrets.check_handle(issued)
        held = Held(
            grant=grant,
            issued=issued,
            uses=tuple((link, b.count) for link, b in grant.budgets if isinstance(b, Uses)),
            rates=tuple((link, b) for link, b in grant.budgets if isinstance(b, Rate)),
        )
        self._held[token] = held
        if len(self._held) > limits.HANDLE_CACHE_MAX:
            self._held.popitem(last=False)
        return held
