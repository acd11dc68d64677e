"""A use without an idempotency key, the only kind that may be answered before its record.

The SDK gives every use a key, because it sends again what had no answer; this is sent once.
"""

from __future__ import annotations

from typing import Any

import msgspec

from keystead.client import Receipt, Use
from keystead.client.core import Call, Flow, Request, Session, Turn, decode, exchange

__all__ = ["Unkeyed"]


class _Answer(msgspec.Struct, frozen=True):
    receipt: Receipt


class Unkeyed(Call[Receipt], frozen=True, kw_only=True):
    """Send a use once, without its key; gives where it stands, its result is not kept."""

    use: Use[Any]

    def flow(self, session: Session, turn: Turn) -> Flow[Receipt]:
        """One request, sent again only if it was refused before it began."""
        use = self.use
        body = {"context": use.context, "facts": msgspec.Raw(use.facts)}
        request = Request(
            method="POST",
            path=f"/v1/{use.purpose}/{use.operation}",
            headers={
                "authorization": f"Bearer {use.handle.reveal()}",
                "content-type": "application/json",
            },
            body=msgspec.json.encode(body),
            repeatable=False,
        )
        until_s = turn.monotonic_s + session.retry.deadline_s
        reply, _ = yield from exchange(session, lambda _: request, turn, until_s)
        return decode(reply.body, _Answer).receipt
