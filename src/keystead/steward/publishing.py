"""Publishes the log: a signed tree head from the vault, tiles below it, cosignatures on it.

The order is fixed: records are committed, the vault signs, tiles are written and must have the
signed root, witnesses are asked, and then the checkpoint is put in place.
"""

from __future__ import annotations

import asyncio
import traceback
from contextlib import suppress

import msgspec
import structlog

from keystead import limits
from keystead.errors import KeysteadError, MalformedRequest, error_for_code
from keystead.frames.messages import Checkpoint, Refused, SignedHead, Tend
from keystead.net.link import VaultLink
from keystead.steward.cosigning import Cosigners
from keystead.steward.tree import TreeWriter
from keystead.store.tile_files import TileFiles
from keystead.translog.notes import parse_vkey

__all__ = ["Publisher"]

_FINDINGS_MAX = 1_000


class Publisher:
    """One log's publication. ``findings`` wait for the rounds, which tell the vault."""

    def __init__(
        self, link: VaultLink, writer: TreeWriter, files: TileFiles, cosigners: Cosigners
    ) -> None:
        self._link = link
        self._writer = writer
        self._files = files
        self._cosigners = cosigners
        self._vkey = ""
        self._published = -1
        self._probed = False
        self._ahead = False
        self._log = structlog.get_logger("steward")
        self.findings: list[str] = []
        self.cosigned = b""
        self.news = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until stopped; whatever fails is tried again."""
        while not stop.is_set():
            try:
                await self.publish()
            except KeysteadError as exc:
                self._log.warning("publish", error=str(exc))
            except Exception as exc:  # noqa: BLE001  a fault of ours: the log grows, so try again
                at = [f"{f.filename}:{f.lineno}" for f in traceback.extract_tb(exc.__traceback__)]
                self._log.error("fault", kind=type(exc).__name__, at=at)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), limits.CHECKPOINT_EVERY_S)

    async def publish(self) -> None:
        """Bring what is published up to what is committed now.

        Raises:
            KeysteadError: the vault, the database or the disk fails; nothing false was published.
        """
        if not self._probed:
            await self._probe()
        answer = await self._link.call(Checkpoint(self._link.take_id()))
        if isinstance(answer, Refused):
            raise error_for_code(answer.code, answer.message, hint=answer.hint)
        head = msgspec.msgpack.decode(answer.result, type=SignedHead)
        if head.vkey != self._vkey:
            await asyncio.to_thread(self._resume, head)
        if self._ahead:
            return  # what was published is never taken back
        if head.size == self._published and not self._cosigners.wanting(head.size):
            return
        if not await asyncio.to_thread(self._build, head):
            return
        note = await self._cosigners.cosigned(head.note, self._writer.nodes())
        if note != head.note and not self.cosigned:
            self.news.set()  # the vault may wait for it
        self.cosigned = note
        await asyncio.to_thread(self._files.publish, note)
        self._published = head.size

    async def _probe(self) -> None:
        note = await asyncio.to_thread(self._files.checkpoint)
        if note is not None:
            with suppress(MalformedRequest):  # damaged: it is made anew below
                await self._cosigners.probe(note)
        if self._cosigners.behind():
            self.news.set()
        self._probed = True

    def telling(self, findings: list[str]) -> Tend:
        """What the vault is told in a round."""
        cosigners = self._cosigners
        return Tend(
            self._link.take_id(),
            tuple(findings),
            self.cosigned,
            cosigners.states(),
            cosigners.behind(),
        )

    def _resume(self, head: SignedHead) -> None:
        published, trouble = self._writer.resume(parse_vkey(head.vkey))
        if trouble:
            self._log.warning("tiles_rebuilt", reason=trouble)
        if published is not None and published.size > head.size:
            self._ahead = True
            self.cosigned = self._files.checkpoint() or b""  # the log's own word for it
            self.news.set()
            finding = (
                f"I10 size {published.size} was published, the log has {head.size} records:"
                " an older database was put back under it"
            )
            self._found([finding])
        self._files.publish_words(self._cosigners.policy(parse_vkey(head.vkey)))
        self._vkey = head.vkey

    def _build(self, head: SignedHead) -> bool:
        """Whether the tiles are those of the head."""
        if self._writer.size > head.size:
            return False
        findings = self._writer.extend(head.size)
        if self._writer.size == head.size and self._writer.root() != head.root:
            findings.append(f"I10 the records up to {head.size} are not what the vault signed")
        self._found(findings)
        return not findings

    def _found(self, findings: list[str]) -> None:
        for finding in findings:
            if finding not in self.findings:
                self._log.error("invariant", finding=finding)
                self.findings = [*self.findings, finding][:_FINDINGS_MAX]
