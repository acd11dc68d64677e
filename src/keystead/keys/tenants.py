"""What a tenant may spend of a node: each has a budget, so that one cannot starve the rest."""

from __future__ import annotations

import msgspec

from keystead import limits
from keystead.keys.administration import check_reason
from keystead.keys.caveats import Rate, check_caveat
from keystead.keys.commands import LimitTenant
from keystead.keys.model import check_name

__all__ = ["DEFAULT_RATE", "Tenant", "budget_of", "limited", "weakened"]

DEFAULT_RATE = Rate(count=limits.TENANT_USES_PER_S, per_s=1)
"""Of a tenant that nobody has limited."""


class Tenant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tenant's budget: at most ``count`` uses in ``per_s`` seconds, a token bucket a node."""

    name: str
    count: int
    per_s: int
    revision: int

    @property
    def rate(self) -> Rate:
        """The bucket."""
        return Rate(count=self.count, per_s=self.per_s)


def budget_of(tenant: Tenant | None) -> Rate:
    """The budget of a tenant, or the one that holds where none was set."""
    return DEFAULT_RATE if tenant is None else tenant.rate


def limited(before: Tenant | None, command: LimitTenant) -> Tenant:
    """The tenant after a change of its budget.

    Raises:
        MalformedRequest: a name, rate or reason that is none.
    """
    check_name(command.tenant, "tenant")
    check_reason(command.reason)
    check_caveat(Rate(count=command.count, per_s=command.per_s))
    return Tenant(
        name=command.tenant,
        count=command.count,
        per_s=command.per_s,
        revision=1 if before is None else before.revision + 1,
    )


def weakened(before: Rate, after: Rate) -> bool:
    """Whether a change lets more through, in a burst or in the long run (I7)."""
    return after.count > before.count or after.count * before.per_s > before.count * after.per_s
