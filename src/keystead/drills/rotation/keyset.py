"""A key set as clients hold it: for its ``Cache-Control``, then asked again by its entity tag."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import msgspec

from keystead.client.core import (
    Call,
    Flow,
    Reply,
    Request,
    Session,
    Turn,
    decode,
    exchange,
    is_success,
)
from keystead.errors import ServiceError

__all__ = ["FetchKeySet", "KeySet", "max_age_s"]

_NOT_MODIFIED = 304
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age=(\d+)")


class KeySet(msgspec.Struct, frozen=True, kw_only=True):
    """A JSON Web Key Set as it was answered. ``age_s``: how long it may be kept."""

    kids: frozenset[str]
    etag: str
    age_s: int
    fresh: bool = True


class _Keys(msgspec.Struct, frozen=True):
    keys: list[dict[str, Any]]


class FetchKeySet(Call[KeySet], frozen=True, kw_only=True):
    """Fetch the key set of a key; ``held``: the one that may still be right, and is asked about."""

    key: str
    held: KeySet | None = None

    def flow(self, session: Session, turn: Turn) -> Flow[KeySet]:
        """Ask by the entity tag that is held: 304 says that nothing changed (RFC 9110, 13.1.2)."""
        headers = {"if-none-match": self.held.etag} if self.held is not None else {}
        request = Request(
            method="GET",
            path=f"/v1/keys/{quote(self.key, safe='')}/jwks.json",
            headers=headers,
            accept=_is_answer,
        )
        until_s = turn.monotonic_s + session.retry.deadline_s
        reply, _ = yield from exchange(session, lambda _: request, turn, until_s)
        age_s = max_age_s(reply.headers.get("cache-control", ""))
        if reply.status == _NOT_MODIFIED:
            if self.held is None:
                raise ServiceError("met 304 where nothing was held: what stands in between?")
            return msgspec.structs.replace(self.held, age_s=age_s, fresh=False)
        kids = frozenset(str(key.get("kid")) for key in decode(reply.body, _Keys).keys)
        return KeySet(kids=kids, etag=reply.headers.get("etag", ""), age_s=age_s)


def max_age_s(cache_control: str) -> int:
    """For how long a reader may keep an answer (RFC 9111 section 5.2.2.1); 0 if it does not say."""
    found = _MAX_AGE.search(cache_control)
    return int(found[1]) if found else 0


def _is_answer(reply: Reply) -> bool:
    return is_success(reply) or reply.status == _NOT_MODIFIED
