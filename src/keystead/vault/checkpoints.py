"""Tree heads: the vault signs those that it computed itself, and no other.

The steward asks; it could be hostile, so it proposes nothing. The frontier of the tree is carried
from checkpoint to checkpoint under the vault's MAC and extended by the leaves as they were
committed; what a crash or a fault left out of those is read from the rows, each held to its entry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import cast

import msgspec

from keystead import limits
from keystead.crypto.public import raw_public
from keystead.crypto.signatures import verify
from keystead.errors import InvariantViolation, KeyStateError, KeysteadError, StateRolledBack
from keystead.frames.messages import Answer, Checkpoint, Done, Refused, SignedHead
from keystead.keys.administration import audit_key
from keystead.keys.lifecycle import State
from keystead.keys.model import Key, Version
from keystead.keys.purposes import Purpose
from keystead.ports import CheckpointRow, Clock, EntryRow, Fence, Registry, Transaction
from keystead.translog.checkpoints import Checkpoint as Head
from keystead.translog.entries import Draft, entry_of, leaf_hash
from keystead.translog.notes import (
    ED25519,
    Note,
    VerifierKey,
    encode_note,
    sign_note,
    vkey_of,
)
from keystead.translog.tree import Frontier
from keystead.vault.anchors import AnchorConfig, Anchors
from keystead.vault.authority import Snapshot
from keystead.vault.committer import Applied, Change, Committed, Committer
from keystead.vault.faults import fault
from keystead.vault.macs import VaultSecrets
from keystead.vault.making import KeyMaker, commit_made
from keystead.vault.opened import OpenedKeys
from keystead.vault.standing import Standing

__all__ = ["Checkpoints", "frontier_bytes", "frontier_of_row"]

_HASH_BYTES = 32
_NODE_LABEL = "node"
_SELF = "(vault)"
_PRUNE_EVERY = 64

Reply = Callable[[Answer], None]


class Checkpoints:
    """One log's checkpoints. All methods run on the loop."""

    def __init__(  # noqa: PLR0913  the services a checkpoint passes through
        self,
        *,
        standing: Standing,
        committer: Committer,
        registry: Registry,
        opened: OpenedKeys,
        secrets: VaultSecrets,
        maker: KeyMaker,
        clock: Clock,
        anchors: AnchorConfig | None = None,
        began: int = -1,
    ) -> None:
        self._standing = standing
        self._committer = committer
        self._registry = registry
        self._opened = opened
        self._secrets = secrets
        self._maker = maker
        self._clock = clock
        self._frontier = Frontier()
        self._last: CheckpointRow | None = None
        self._asking: asyncio.Task[SignedHead] | None = None
        self._signed = 0
        self._key_id: str | None = None
        self.anchors = Anchors(
            config=anchors or AnchorConfig(),
            standing=standing,
            registry=registry,
            log_key=self.vkey,
            began=began,
        )

    @property
    def origin(self) -> str:
        """The log's name: one log a node (C2SP tlog-checkpoint)."""
        return f"{self._standing.deployment}/{self._standing.node}"

    @property
    def size(self) -> int:
        """Of the last checkpoint that was signed."""
        return 0 if self._last is None else self._last.size

    def vkey(self) -> VerifierKey | None:
        """The log's verifier key, if it has one yet."""
        key = self._key()
        return None if key is None else self._vkey_of(key.primary_version())

    def _vkey_of(self, version: Version) -> VerifierKey:
        return vkey_of(self.origin, ED25519, raw_public(version.public[0]))

    def load(self) -> None:
        """Take up the last checkpoint, at a start.

        Raises:
            StateRolledBack: its row was altered, or the log is shorter than it.
        """
        row = self._registry.checkpoint()
        if row is None:
            self.anchors.look()
            return
        self._secrets.check_checkpoint(row)
        there = self._registry.last_sequence() + 1
        if there < row.size:
            raise StateRolledBack(
                f"the log has {there} records, its last checkpoint was signed over {row.size}:"
                " records were removed",
                hint="Restore the registry that was there; see docs/evidence.md,"
                " When a log is behind",
            )
        self._frontier = frontier_of_row(row)
        self._last = row
        self.anchors.look()

    def begin(self, request: Checkpoint, reply: Reply) -> None:
        """Sign what is committed; one at a time, shared by all who ask meanwhile."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._sign())
            self._asking.add_done_callback(self._ended)
        self._asking.add_done_callback(partial(_answer, request.id, reply))

    def _ended(self, _task: asyncio.Task[SignedHead]) -> None:
        self._asking = None

    async def close(self) -> None:
        """Let a signature that is under way end."""
        if self._asking is not None:
            await asyncio.wait([self._asking])

    # --- signing -----------------------------------------------------------------------------

    async def _sign(self) -> SignedHead:
        self._standing.check()
        key = self._key() or await self._make_key()
        version = key.primary_version()
        if version.state is not State.ACTIVE:
            raise KeyStateError(
                f"the log's key {key.name} is {version.state}: no checkpoint is signed",
                hint="Reactivate it if it was suspended by mistake",
            )
        await self._extend()
        vkey = self._vkey_of(version)
        last = self._last
        if last is None or last.size != self._frontier.size:
            row = self._secrets.signed_checkpoint(self._row(key, version, vkey))
            await self._commit(row)
            self._last = last = row
            self._signed += 1
        self.anchors.signed(last.size, last.note)
        return SignedHead(
            vkey=vkey.encode(),
            size=last.size,
            root=last.root,
            note=last.note,
            time_ms=last.time_ms,
        )

    def _row(self, key: Key, version: Version, vkey: VerifierKey) -> CheckpointRow:
        head = Head(self.origin, self._frontier.size, self._frontier.root())
        text = head.encode()
        opened = self._opened.get(key, version)

        def sign(message: bytes) -> bytes:
            (signature,) = opened.sign(message, prehashed=False)
            verify("ed25519", version.public[0], message, signature)
            return signature

        note = encode_note(Note(text, (sign_note(text, vkey, sign),)))
        return CheckpointRow(
            head.size,
            head.root,
            frontier_bytes(self._frontier),
            note,
            self._clock.now_ms(),
            b"",
        )

    async def _commit(self, row: CheckpointRow) -> None:
        before_ms = row.time_ms - limits.CHECKPOINTS_KEPT_MS
        prune = self._signed % _PRUNE_EVERY == 0

        def apply(tx: Transaction, _snapshot: Snapshot, _epoch: int, _seq: int) -> Applied:
            there = tx.last_sequence() + 1
            if there < row.size:
                raise InvariantViolation(
                    f"a checkpoint over {row.size} records, of which {there} are committed"
                )
            tx.put_checkpoint(row)
            mark = self.anchors.mark()
            if mark is not None:
                tx.put_meta(*mark)
            if prune:
                tx.prune_checkpoints(before_ms, limits.CHECKPOINTS_PRUNED_AT_ONCE)
            return Applied()

        await self._change(apply, "shared")

    async def _change(
        self,
        apply: Callable[[Transaction, Snapshot, int, int], Applied],
        fence: Fence = "exclusive",
    ) -> tuple[object, Committed]:
        done: asyncio.Future[tuple[object, Committed] | KeysteadError] = (
            asyncio.get_running_loop().create_future()
        )

        def deliver(outcome: tuple[object, Committed] | KeysteadError) -> None:
            if not done.done():
                done.set_result(outcome)

        self._committer.change(Change(apply, deliver, fence))
        outcome = await done
        if isinstance(outcome, KeysteadError):
            raise outcome
        return outcome

    # --- the tree ----------------------------------------------------------------------------

    async def _extend(self) -> None:
        """Append what was committed since, in slices that leave the loop to the uses."""
        while runs := self._committer.leaves.take(limits.LOG_ROWS_AT_ONCE):
            for first, leaves in runs:
                if first > self._frontier.size:  # a commit that was reported as failed and was not
                    await self._catch_up(first)
                known = self._frontier.size - first
                self._frontier = self._frontier.extended(leaves[known:] if known > 0 else leaves)
            await asyncio.sleep(0)
        await self._catch_up(self._registry.last_sequence() + 1)

    async def _catch_up(self, size: int) -> None:
        """Append rows that the committer did not hand over: of before a start, or of a fault."""
        while self._frontier.size < size:
            at = self._frontier.size
            rows = self._registry.entries_from(at, min(limits.LOG_ROWS_AT_ONCE, size - at))
            if not rows:
                raise self._tampered(f"record {at} is missing")
            self._frontier = self._frontier.extended(
                self._leaf_of(row, at + offset) for offset, row in enumerate(rows)
            )
            await asyncio.sleep(0)

    def _leaf_of(self, row: EntryRow, seq: int) -> bytes:
        if row.seq != seq:
            raise self._tampered(f"record {seq} is missing")
        if row.body is not None and row.salt is not None:
            if entry_of(row.salt, row.body) != row.entry:
                raise self._tampered(f"the body of record {seq} is not that of its entry")
            if not row.body.startswith(b'{"seq":%d,' % seq):
                raise self._tampered(f"the body of record {seq} is of another place")
        return leaf_hash(row.entry)

    def _tampered(self, what: str) -> StateRolledBack:
        self._standing.count("invariant_violations", "I10")
        self._standing.tampered = StateRolledBack(
            f"the log was altered before its checkpoint: {what}",
            hint="Stop the node, find out who wrote to the database, restore it from a backup",
        )
        return self._standing.tampered

    # --- the key -----------------------------------------------------------------------------

    def _key(self) -> Key | None:
        """The log's key: of purpose audit, which nobody else can make, and of this node."""
        keys = self._standing.snapshot.keys
        if self._key_id is None:
            labels = {_NODE_LABEL: self._standing.node}
            self._key_id = next(
                (
                    key.id
                    for key in keys.values()
                    if key.purpose is Purpose.AUDIT and key.labels == labels
                ),
                None,
            )
        return None if self._key_id is None else keys[self._key_id]

    async def _make_key(self) -> Key:
        """At the first checkpoint of a node."""
        node, now_ms = self._standing.node, self._clock.now_ms()
        name = f"log.{node}"
        if name in self._standing.snapshot.names:  # a key of an older deployment has that name
            name = f"log.{node}.{self._maker.new_id()}"
        key, algorithm = audit_key(
            name, {_NODE_LABEL: node}, key_id=self._maker.new_id(), now_ms=now_ms
        )
        made = self._maker.make(key, algorithm, self._maker.tenant_key(key.tenant))
        draft = Draft(
            time_ms=now_ms,
            node=node,
            op="key.create",
            outcome="ok",
            request=f"log-{now_ms}",
            purpose=str(key.purpose),
            tenant=key.tenant,
            principal=_SELF,
            detail="the log's own key",
        )

        def apply(tx: Transaction, snapshot: Snapshot, epoch: int, _seq: int) -> Applied:
            return commit_made(made, draft, self._secrets, tx=tx, snapshot=snapshot, epoch=epoch)

        await self._change(apply)
        found = self._key()
        if found is None:
            raise InvariantViolation("the log's key was made and is not there")
        return found


def frontier_bytes(frontier: Frontier) -> bytes:
    """A frontier's hashes as its row has them."""
    return b"".join(frontier.hashes)


def frontier_of_row(row: CheckpointRow) -> Frontier:
    """The frontier of a checkpoint's row, whose MAC was checked."""
    hashes = tuple(
        row.frontier[at : at + _HASH_BYTES] for at in range(0, len(row.frontier), _HASH_BYTES)
    )
    frontier = Frontier(row.size, hashes)
    frontier.check()
    return frontier


def _answer(number: int, reply: Reply, task: asyncio.Task[SignedHead]) -> None:
    if task.cancelled():
        return
    exc = task.exception()
    if exc is None:
        reply(Done(number, msgspec.msgpack.encode(task.result())))
        return
    error = exc if isinstance(exc, KeysteadError) else fault(cast("Exception", exc))
    reply(Refused(number, error.code or "internal", error.message, error.hint, error.retry_after_s))
