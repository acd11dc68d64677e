"""Signed revocation lists of a key, fetched and checked: nothing of them need be believed.

Who relies on them keeps two things: the verifier key of the node's log, got once and elsewhere, and
the greatest epoch that it has seen of each list, so that nobody puts an older one in its place.
"""

from __future__ import annotations

from functools import partial
from urllib.parse import quote

import msgspec

from keystead.client.core import Call, Flow, Request, Session, Turn, exchange, front_by_front
from keystead.errors import ServiceError, SignatureInvalid
from keystead.keys.revocations import (
    DenyList,
    ListName,
    Statement,
    check_statement,
    parse_deny_list,
)
from keystead.translog.notes import VerifierKey, parse_note, parse_vkey, verify_note

__all__ = ["CheckedList", "FetchList", "check_list", "deny_list_of", "revocation_list"]

_FILES: dict[ListName, str] = {
    "krl": "krl",
    "revoked_hosts": "revoked_hosts",
    "deny": "deny.json",
}
_REVALIDATED = {"cache-control": "no-cache"}  # RFC 9111 section 5.2.1.4


class CheckedList(msgspec.Struct, frozen=True, kw_only=True):
    """A list whose signature was checked. Keep ``epoch``, to refuse an older one next time."""

    key: str
    name: ListName
    epoch: int
    data: bytes


def check_list(
    data: bytes,
    note: bytes | str,
    vkey: VerifierKey,
    *,
    key: str,
    name: ListName,
    epoch_at_least: int = 0,
) -> Statement:
    """What the log's key says of the list ``data`` in the note beside it.

    Raises:
        SignatureInvalid: not signed by this key; or of another log, key or kind of list, of other
            bytes, or of an older epoch than ``epoch_at_least``.
        MalformedRequest: not a signed note at all.
    """
    parsed = parse_note(note)
    verify_note(parsed, (vkey,))
    return check_statement(
        parsed.text, data, origin=vkey.name, key=key, name=name, epoch_at_least=epoch_at_least
    )


class FetchList(Call[CheckedList], frozen=True, kw_only=True):
    """Fetch a list and its note, and check them; see :func:`revocation_list`."""

    key: str
    name: ListName
    vkey: VerifierKey
    epoch_at_least: int

    def flow(self, session: Session, turn: Turn) -> Flow[CheckedList]:
        """Ask for both; once more, past every cache, if they do not belong together.

        A change between the two answers, or a cache that holds one of them longer, is no attack.
        Each node signs with its own log's key: of several fronts the next is asked then.
        """
        return front_by_front(
            session, partial(self._from, session), turn, passed=(SignatureInvalid, ServiceError)
        )

    def _from(self, session: Session, front: str, turn: Turn, until_s: float) -> Flow[CheckedList]:
        get = partial(self._get, session, front, until_s)
        note, turn = yield from get(".note", turn, {})
        data, turn = yield from get("", turn, {})
        try:
            return self._checked(data, note)
        except SignatureInvalid:
            note, turn = yield from get(".note", turn, _REVALIDATED)
            data, turn = yield from get("", turn, _REVALIDATED)
            return self._checked(data, note)

    def _get(  # noqa: PLR0917  what is bound for all four comes first
        self,
        session: Session,
        front: str,
        until_s: float,
        part: str,
        turn: Turn,
        headers: dict[str, str],
    ) -> Flow[tuple[bytes, Turn]]:
        name = f"{self.name}{part}" if part else _FILES[self.name]
        path = f"/v1/keys/{quote(self.key, safe='')}/{name}"
        request = Request(method="GET", path=path, headers=headers)
        reply, turn = yield from exchange(session, lambda _: request, turn, until_s, only=front)
        return reply.body, turn

    def _checked(self, data: bytes, note: bytes) -> CheckedList:
        said = check_list(
            data,
            note,
            self.vkey,
            key=self.key,
            name=self.name,
            epoch_at_least=self.epoch_at_least,
        )
        return CheckedList(key=self.key, name=self.name, epoch=said.epoch, data=data)


def revocation_list(
    key: str, name: ListName, vkey: str, *, epoch_at_least: int = 0
) -> Call[CheckedList]:
    """A revocation list of a key, checked: ``krl``, ``revoked_hosts`` or ``deny``.

    ``vkey``: the verifier key of the node's log, from somewhere else than the node.
    ``epoch_at_least``: the epoch of the list that was seen last; 0: none yet.

    Raises:
        MalformedRequest: no verifier key; when it is run: the key has no such list.
        SignatureInvalid: when it is run: what came is not what that log signed, or is older.
    """
    return FetchList(key=key, name=name, vkey=parse_vkey(vkey), epoch_at_least=epoch_at_least)


def deny_list_of(checked: CheckedList) -> DenyList:
    """The versions that a checked ``deny`` list refuses.

    Raises:
        MalformedRequest: another list.
    """
    return parse_deny_list(checked.data)
