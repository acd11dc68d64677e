"""What relying parties tell of a key in a rollout: under a handle, and recorded, as uses are.

The handle must have been issued with the operation ``report`` or ``acknowledge``. Both take, beside
what is their own, ``context``: the slash path it is told of, by default what the handle is narrowed
to; ``idempotency_key``: made up if not given; ``reason``: free text for the record.
"""

from __future__ import annotations

from typing import TypedDict, TypeVar, Unpack
from urllib.parse import quote

import msgspec

from keystead.client.core import Request, Session
from keystead.client.operations import new_idempotency_key
from keystead.client.uses import Use
from keystead.errors import MalformedRequest
from keystead.keys.caveats import ContextPrefix
from keystead.keys.framing.base import Facts
from keystead.keys.handles import Handle, parse
from keystead.keys.rollout.reports import (
    Acknowledge,
    AcknowledgeResult,
    Problem,
    ReportFailure,
    ReportResult,
)

__all__ = ["Signal", "SignalOptions", "acknowledge_key", "report_failure"]

T = TypeVar("T")

_ANYWHERE = "relying"
"""The context of what is told under a handle that names none."""


class SignalOptions(TypedDict, total=False):
    """What both take; see the module."""

    context: str | None
    idempotency_key: str | None
    reason: str | None


class Signal(Use[T], frozen=True, kw_only=True):
    """Something told of the key ``key``; it is one however often it is run, as a use is."""

    key: str
    part: str

    def _request(self, session: Session, body: bytes, now_ms: int) -> Request:
        request = super()._request(session, body, now_ms)
        path = f"/v1/keys/{quote(self.key, safe='')}/{self.part}"
        return msgspec.structs.replace(request, path=path)


def report_failure(
    key: str,
    handle: Handle | str,
    seq: int,
    problem: Problem,
    node: str = "",
    **options: Unpack[SignalOptions],
) -> Signal[ReportResult]:
    """Report that what a use gave does not verify.

    ``seq``, ``node``: the use's place, and in whose log, as its receipt has them; without a node,
    in that of the front's. ``problem``: ``signature``: it is
    wrong; ``unknown_key``: nobody here knows its key id; ``algorithm``: nobody here knows that.

    Raises:
        HandleInvalid: no handle.
        MalformedRequest: a sequence or problem that is none.
    """
    facts = _facts({"seq": seq, "problem": problem, "key": key, "node": node}, ReportFailure)
    return _signal(key, handle, ("report", "reports"), facts, ReportResult, options)


def acknowledge_key(
    key: str, handle: Handle | str, kid: str, **options: Unpack[SignalOptions]
) -> Signal[AcknowledgeResult]:
    """Say that you hold the public part of the version with this key id, and verify by it.

    Raises:
        HandleInvalid: no handle.
        MalformedRequest: no key id.
    """
    facts = _facts({"kid": kid, "key": key}, Acknowledge)
    return _signal(
        key, handle, ("acknowledge", "acknowledgements"), facts, AcknowledgeResult, options
    )


_F = TypeVar("_F", bound=Facts)


def _facts(members: dict[str, object], form: type[_F]) -> _F:
    """Checked here, as the node would check it.

    They name the key, as its path does, so that a proof of possession covers that, too.
    """
    try:
        return msgspec.convert(members, form)
    except msgspec.ValidationError as exc:
        raise MalformedRequest(f"expected what can be told of a key: {exc}") from None


def _signal(  # noqa: PLR0917  a handle, what is told, and what comes back
    key: str,
    handle: Handle | str,
    operation: tuple[str, str],
    facts: Facts,
    result: type[T],
    options: SignalOptions,
) -> Signal[T]:
    unknown = options.keys() - SignalOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"unexpected keyword arguments: {', '.join(sorted(unknown))}")
    held = handle if isinstance(handle, Handle) else parse(handle)
    given = options.get("idempotency_key")
    return Signal(
        key=key,
        part=operation[1],
        purpose=str(held.body.purpose),
        operation=operation[0],
        handle=held,
        context=options.get("context") or _context_of(held),
        facts=msgspec.json.encode(facts),
        facts_type=type(facts),
        result=result,
        version=0,
        idempotency_key=new_idempotency_key() if given is None else given,
        reason=options.get("reason"),
    )


def _context_of(handle: Handle) -> str:
    """The narrowest context that the handle allows."""
    prefixes = [c.prefix for c in handle.caveats if isinstance(c, ContextPrefix)]
    return max(prefixes, key=len, default=_ANYWHERE)
