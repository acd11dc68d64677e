"""Every operation of every offered purpose: the type of its facts, and its framing if it signs."""

from __future__ import annotations

from keystead.errors import MalformedRequest
from keystead.keys.framing.base import Facts, Framing
from keystead.keys.framing.ca import CA
from keystead.keys.framing.data import Derive, Mac, Unwrap, Wrap
from keystead.keys.framing.firmware import FIRMWARE
from keystead.keys.framing.jwt import JWT
from keystead.keys.framing.ledger import LEDGER
from keystead.keys.framing.ssh_ca import SSH_CA
from keystead.keys.framing.tls import TLS, TLS_PREHASHED
from keystead.keys.purposes import PURPOSES, Purpose
from keystead.keys.rollout.reports import Acknowledge, ReportFailure

__all__ = ["FACTS", "FRAMINGS", "facts_type"]

FRAMINGS: dict[tuple[Purpose, str], Framing] = {
    (Purpose.TLS, "sign"): TLS,
    (Purpose.TLS, "sign_digest"): TLS_PREHASHED,
    (Purpose.CA, "sign"): CA,
    (Purpose.JWT, "sign"): JWT,
    (Purpose.FIRMWARE, "sign"): FIRMWARE,
    (Purpose.LEDGER, "append"): LEDGER,
    (Purpose.SSH_CA, "sign"): SSH_CA,
}
"""(purpose, operation) to the framing of what it signs."""

FACTS: dict[tuple[str, str], type[Facts]] = {
    **{(str(purpose), operation): row.facts for (purpose, operation), row in FRAMINGS.items()},
    ("data", "wrap"): Wrap,
    ("data", "unwrap"): Unwrap,
    ("data", "derive"): Derive,
    ("data", "mac"): Mac,
    **{(str(p), "report"): ReportFailure for p, row in PURPOSES.items() if row.offered},
    **{(str(p), "acknowledge"): Acknowledge for p, row in PURPOSES.items() if row.offered},
}
"""(purpose, operation) as on the wire to the type of its facts."""


def facts_type(purpose: str, operation: str) -> type[Facts]:
    """The facts an operation takes.

    Raises:
        MalformedRequest: no such operation.
    """
    try:
        return FACTS[purpose, operation]
    except KeyError:
        raise MalformedRequest(
            f"no operation {purpose[:32]}/{operation[:32]}",
            hint="Known: " + ", ".join("/".join(pair) for pair in FACTS),
        ) from None
