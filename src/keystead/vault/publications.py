"""Signed revocation lists: each is signed once for a revision of its key, and recorded before.

Anyone may ask, and many do at once: what was signed is kept, in memory and in the registry, so that
no number of questions makes another signature or record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import msgspec

from keystead.crypto.public import raw_public
from keystead.crypto.signatures import verify
from keystead.errors import Conflict, KeysteadError, LogUnavailable
from keystead.frames.messages import Answer, Done, Public, Refused
from keystead.keys.lifecycle import check_may_protect
from keystead.keys.model import Key, Version
from keystead.keys.purposes import Purpose
from keystead.keys.revocations import LISTS, ListName, list_bytes, statement_of
from keystead.ports import Clock, Registry, Transaction
from keystead.translog.entries import Draft
from keystead.translog.notes import ED25519, Note, encode_note, parse_note, sign_note, vkey_of
from keystead.vault.authority import Snapshot
from keystead.vault.committer import Applied, Change, Committed, Committer
from keystead.vault.describe import cache_s
from keystead.vault.faults import fault
from keystead.vault.macs import VaultSecrets
from keystead.vault.opened import OpenedKeys
from keystead.vault.standing import Standing

__all__ = ["LIST_PARTS", "Publications"]

LIST_PARTS: dict[str, tuple[ListName, bool]] = {
    **{name: (name, False) for name in LISTS},
    **{f"{name}.note": (name, True) for name in LISTS},
}
"""What is asked for, to which list it is, and whether its note is meant."""

_AGE_MAX_S = 60
"""How long a reader may keep a list: a revocation is seen no later than that."""
_TRIES = 3
_NODE_LABEL = "node"
_SELF = "(vault)"

Reply = Callable[[Answer], None]


class _Signed(msgspec.Struct, frozen=True, array_like=True):
    """What the registry keeps of a signature; the list itself is made again from the key."""

    revision: int
    generated_s: int
    note: bytes


class _Held(NamedTuple):
    """A list of one revision of its key, and its note."""

    revision: int
    data: bytes
    note: bytes


class Publications:
    """The revocation lists of all keys, signed by this node's log key. Methods run on the loop."""

    def __init__(
        self,
        *,
        standing: Standing,
        committer: Committer,
        registry: Registry,
        opened: OpenedKeys,
        secrets: VaultSecrets,
        clock: Clock,
        next_request_id: Callable[[], str],
    ) -> None:
        self._standing = standing
        self._committer = committer
        self._registry = registry
        self._opened = opened
        self._secrets = secrets
        self._clock = clock
        self._next_request_id = next_request_id
        self._held: dict[tuple[str, ListName], _Held] = {}
        self._making: dict[tuple[str, ListName], asyncio.Task[None]] = {}

    def begin(self, request: Public, reply: Reply) -> None:
        """Answer with (age in seconds, list or note); ``reply`` is called once, now or later."""
        name, wants_note = LIST_PARTS[request.what]
        try:
            self._standing.check()
            key = self._standing.snapshot.named(request.name)
        except KeysteadError as exc:
            reply(_refused(request, exc))
            return
        place = (key.id, name)
        held = self._held.get(place)
        if held is not None and held.revision == key.revision:
            age_s = min(_AGE_MAX_S, cache_s(key, self._standing.snapshot.rotations.get(key.id)))
            body = held.note if wants_note else held.data
            reply(Done(request.id, msgspec.msgpack.encode((age_s, body))))
            return
        task = self._making.get(place)
        if task is None:
            task = self._making[place] = asyncio.create_task(self._make(*place))
            task.add_done_callback(lambda _: self._making.pop(place))
        task.add_done_callback(partial(self._made, request, reply))

    def _made(self, request: Public, reply: Reply, task: asyncio.Task[None]) -> None:
        """Begin again: the key may have changed since, and nobody gets a list of before."""
        if task.cancelled():
            return
        exc = task.exception()
        if exc is None:
            self.begin(request, reply)
            return
        error = exc if isinstance(exc, KeysteadError) else fault(cast("Exception", exc))
        reply(_refused(request, error))

    async def close(self) -> None:
        """Let what is under way end."""
        if self._making:
            await asyncio.wait(list(self._making.values()))

    # --- signing -----------------------------------------------------------------------------

    async def _make(self, key_id: str, name: ListName) -> None:
        """Hold the list of the key as it is now: as it was signed before, or signed just now.

        Raises:
            Conflict: the key changed at each try.
        """
        for _ in range(_TRIES):
            key = self._standing.snapshot.key(key_id)
            try:
                held = self._stored(key, name) or await self._sign(key, name)
            except Conflict:
                continue
            self._held[key_id, name] = held
            return
        raise Conflict(f"key {key_id} changes all the time", hint="Ask again in a second")

    def _stored(self, key: Key, name: ListName) -> _Held | None:
        """What was signed of this revision, if it says what would be signed today."""
        counter = self._counter(name)
        stored = self._registry.counter(key.id, counter)
        state = self._secrets.open_counter(key.id, counter, stored)
        if state is None:
            return None
        signed = msgspec.msgpack.decode(state, type=_Signed)
        if signed.revision != key.revision:
            return None
        data = self._list(key, name, signed.generated_s)
        if parse_note(signed.note).text != self._text(key, name, data):
            return None
        return _Held(key.revision, data, signed.note)

    async def _sign(self, key: Key, name: ListName) -> _Held:
        now_ms = self._clock.now_ms()
        generated_s = now_ms // 1000
        data = self._list(key, name, generated_s)
        self._standing.check_use()
        signer = self._signer(self._standing.snapshot)
        if signer is None:
            raise LogUnavailable(
                "this node's log has no key yet: no list is signed",
                hint="It is made with the first checkpoint, within a second: ask again",
                retry_after_s=1.0,
            )
        text = self._text(key, name, data)
        statement = statement_of(self._origin, key, name, data)
        note = self._note(*signer, text)
        draft = Draft(
            time_ms=now_ms,
            node=self._standing.node,
            op="revocations.sign",
            outcome="ok",
            request=self._next_request_id(),
            key=key.id,
            name=key.name,
            revision=key.revision,
            purpose=str(key.purpose),
            algorithm=signer[1].algorithm,
            tenant=key.tenant,
            principal=_SELF,
            detail=f"{name} of epoch {key.epoch}, sha256 {statement.sha256.hex()}",
        )
        await self._commit(key, signer[0], self._kept(key, name, generated_s, note), draft)
        return _Held(key.revision, data, note)

    def _note(self, audit: Key, version: Version, text: str) -> bytes:
        opened = self._opened.get(audit, version)

        def sign(message: bytes) -> bytes:
            (signature,) = opened.sign(message, prehashed=False)
            verify("ed25519", version.public[0], message, signature)
            return signature

        vkey = vkey_of(self._origin, ED25519, raw_public(version.public[0]))
        return encode_note(Note(text, (sign_note(text, vkey, sign),)))

    def _kept(
        self, key: Key, name: ListName, generated_s: int, note: bytes
    ) -> dict[tuple[str, str], bytes]:
        counter = self._counter(name)
        state = msgspec.msgpack.encode(_Signed(key.revision, generated_s, note))
        return {(key.id, counter): self._secrets.seal_counter(key.id, counter, state)}

    async def _commit(
        self, key: Key, audit: Key, kept: dict[tuple[str, str], bytes], draft: Draft
    ) -> None:
        """Record the signature, if key and signer are in the commit what they were before it (I4).

        Raises:
            Conflict: one of them has changed, if only in its state.
        """
        done: asyncio.Future[tuple[object, Committed] | KeysteadError] = (
            asyncio.get_running_loop().create_future()
        )

        def apply(tx: Transaction, snapshot: Snapshot, _epoch: int, _seq: int) -> Applied:
            if snapshot.key(key.id).revision != key.revision:
                raise Conflict(f"key {key.name} changed while its list was signed")
            if snapshot.key(audit.id).revision != audit.revision:
                raise Conflict("the log's key changed while it signed a list")
            tx.put_counters(kept)
            return Applied(drafts=(draft,))

        def deliver(outcome: tuple[object, Committed] | KeysteadError) -> None:
            if not done.done():
                done.set_result(outcome)

        self._committer.change(Change(apply, deliver, "shared"))
        outcome = await done
        if isinstance(outcome, KeysteadError):
            raise outcome

    # --- what is signed ----------------------------------------------------------------------

    @property
    def _origin(self) -> str:
        return f"{self._standing.deployment}/{self._standing.node}"

    def _counter(self, name: ListName) -> str:
        """Of each node its own: it signs with the key of its own log."""
        return f"published/{self._standing.node}/{name}"

    def _list(self, key: Key, name: ListName, generated_s: int) -> bytes:
        return list_bytes(name, key, self._standing.snapshot.rotations.get(key.id), generated_s)

    def _text(self, key: Key, name: ListName, data: bytes) -> str:
        return statement_of(self._origin, key, name, data).encode()

    def _signer(self, snapshot: Snapshot) -> tuple[Key, Version] | None:
        """The key of this node's log, and its version.

        Raises:
            KeyStateError: it is stopped.
        """
        labels = {_NODE_LABEL: self._standing.node}
        for key in snapshot.keys.values():
            if key.purpose is Purpose.AUDIT and key.labels == labels:
                version = key.primary_version()
                check_may_protect(version.state)
                return key, version
        return None


def _refused(request: Public, error: KeysteadError) -> Refused:
    return Refused(
        request.id, error.code or "internal", error.message, error.hint, error.retry_after_s
    )
