"""One use on its way through the vault, from frame to answer."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from keystead.errors import KeysteadError, MalformedRequest
from keystead.frames.messages import Answer, Done, Receipt, Refused, Use
from keystead.keys.framing.base import CounterStep, Facts
from keystead.keys.model import Key, Version, check_context
from keystead.keys.purposes import PURPOSES, SIGNALS
from keystead.keys.use import Asked, Bearer
from keystead.translog.entries import Draft
from keystead.vault.grants import Held

__all__ = ["Running"]

_NOBODY = Bearer()
_OPERATIONS = frozenset(
    f"{purpose!s}.{operation}"
    for purpose, row in PURPOSES.items()
    for operation in (*row.operations, *SIGNALS)
)


class Running:
    """What is known of a use so far; its services fill it in, in the order of the fields."""

    __slots__ = (
        "ack",
        "algorithm",
        "asked",
        "bearer",
        "chosen",
        "detail",
        "epoch",
        "facts",
        "held",
        "idempotency",
        "key",
        "now_ms",
        "reading",
        "replay_of",
        "reply",
        "request_id",
        "result",
        "retries",
        "step",
        "took_us",
        "use",
        "version",
    )

    def __init__(
        self, use: Use, reply: Callable[[Answer], None], *, now_ms: int, request_id: str
    ) -> None:
        self.use = use
        self.reply = reply
        self.now_ms = now_ms
        self.request_id = request_id
        self.epoch = 0
        self.bearer = _NOBODY
        self.chosen: int | None = None
        self.detail = ""
        self.held: Held | None = None
        self.key: Key | None = None
        self.asked = Asked(
            purpose=use.purpose,
            operation=use.operation,
            context=use.context,
            version=use.version,
        )
        self.facts: Facts | None = None
        self.version: Version | None = None
        self.algorithm = ""
        self.idempotency: tuple[str, str, bytes] | None = None
        self.replay_of: Receipt | None = None
        self.step: CounterStep | None = None
        self.reading = 0
        self.ack = "durable"
        self.result = b""
        self.retries = 0
        self.took_us: int | None = None

    def draft(self, node: str, *, outcome: str = "ok", signed: str = "", detail: str = "") -> Draft:
        """The record of the use as far as it got."""
        key, version, held = self.key, self.version, self.held
        return Draft(
            time_ms=self.now_ms,
            node=node,
            op=_operation(self.asked),
            outcome=outcome,
            request=self.request_id,
            key=key.id if key else "",
            name=key.name if key else "",
            version=version.number if version else 0,
            purpose=str(key.purpose) if key else "",
            algorithm=self.algorithm,
            ack=self.ack,
            prehashed=bool(key and key.prehashed),
            tenant=key.tenant if key else "",
            context=self._recordable_context(),
            handle=held.grant.body.handle_id if held else "",
            link=held.grant.chain_id if held else "",
            principal=held.issued.principal if held else "",
            reason=self.use.reason or "" if held else "",
            detail=detail or self.detail,
            signed=signed,
        )

    def _recordable_context(self) -> str:
        """A context that is well-formed; what is not may hold anything, and is not recorded (I9).

        With a version the use was admitted, and its context held to its form then.
        """
        if self.held is None:
            return ""
        if self.version is None:
            try:
                check_context(self.asked.context)
            except MalformedRequest:
                return ""
        return self.asked.context

    def receipt(self, node: str, *, seq: int | None, epoch: int) -> Receipt:
        """Where the use stands, for its caller."""
        key, version = self.key, self.version
        return Receipt(
            seq=seq,
            epoch=epoch,
            key=key.name if key else "",
            version=version.number if version else 0,
            kid=version.kid if version else "",
            algorithm=self.algorithm,
            ack=self.ack,
            request_id=self.request_id,
            node=node,
        )

    def done(
        self, receipt: Receipt, *, replayed: bool = False, result: bytes | None = None
    ) -> None:
        """Answer with the result: its record is durable, or reserved."""
        if replayed:
            receipt = msgspec.structs.replace(receipt, replayed=True)
        self.reply(Done(self.use.id, self.result if result is None else result, receipt))

    def refuse(self, error: KeysteadError) -> None:
        """Answer with a problem."""
        self.reply(
            Refused(
                self.use.id,
                error.code or "internal",
                error.message,
                error.hint,
                error.retry_after_s,
                self.request_id,
            )
        )


def _operation(asked: Asked) -> str:
    """An operation that there is; any other name is the caller's own, and not recorded (I9)."""
    name = f"{asked.purpose}.{asked.operation}"
    return name if name in _OPERATIONS else "unknown"
