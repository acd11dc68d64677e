"""Who may administer: until roles come, whoever holds the operator's token, everything."""

from __future__ import annotations

from keystead.errors import PermissionDenied
from keystead.keys.model import Key, Principal

__all__ = ["OPERATOR", "OperatorGuard"]

OPERATOR = Principal(name="operator", tenant="default")


class OperatorGuard:
    """Behind the port ``Guard``."""

    def decide(self, principal: Principal, action: str, target: Key | None) -> None:  # noqa: ARG002  the port's shape
        """Allow the operator everything, all others nothing.

        Raises:
            PermissionDenied: anyone else.
        """
        if principal != OPERATOR:
            raise PermissionDenied(f"{principal.name} may not do {action}")
