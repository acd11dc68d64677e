"""The published log over HTTP: tlog-tiles under ``/log/``, and proofs made of them.

What is published is salted hashes and signed tree heads, for anyone. The steward writes the files;
here they are read, and proofs are put together out of them, so that the vault is not asked.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from keystead import limits
from keystead.errors import KeysteadError, MalformedRequest, NotFound
from keystead.front.admission import Admission
from keystead.front.bodies import Receive, Scope, read_head
from keystead.front.problems import JSON_HEADERS, HeaderList, Reply
from keystead.store.tile_files import CHECKPOINT, POLICY, VKEY, TileFiles
from keystead.translog.checkpoints import parse_checkpoint
from keystead.translog.notes import parse_note
from keystead.translog.proofs import Evidence, LogProof
from keystead.translog.tiles import TILE_WIDTH, Bundle, TileNodes, decode_bundle, parse_path
from keystead.translog.tree import inclusion_proof

__all__ = ["LOG_PATH", "Published"]

LOG_PATH = "/log/"
_PROOF = "proof/"
_TEXT = b"text/plain; charset=utf-8"
_BYTES = b"application/octet-stream"
_IMMUTABLE = b"public, max-age=31536000, immutable"  # RFC 8246: a tile's content never changes
_FRESH = b"no-cache"
_POLL_S = 0.05
_SEQ_DIGITS_MAX = 18


class Published:
    """The log's files of one node."""

    def __init__(self, folder: Path, admission: Admission, node: str = "") -> None:
        self._node = node
        self._files = TileFiles(folder)
        self._admission = admission
        self._size = 0
        self._watching: asyncio.Task[None] | None = None
        self._waiting: dict[asyncio.Future[None], int] = {}

    async def get(self, scope: Scope, receive: Receive) -> Reply:
        """`GET /log/checkpoint`, `vkey`, `policy`, `tile/...` and `proof/{seq}`.

        Raises:
            NotFound: the log has no such file, or not yet.
            MalformedRequest: no path of a tile, or no sequence.
        """
        del receive  # a body means nothing here (RFC 9110 section 9.3.1)
        read_head(scope, body_bytes_max=0)
        name: str = scope["path"].removeprefix(LOG_PATH)
        key = await self._admission.enter(b"", client=scope.get("client"))
        try:
            return self._reply(name)
        finally:
            self._admission.leave(key)

    def _reply(self, name: str) -> Reply:
        if name == CHECKPOINT:
            return Reply(200, _headers(_TEXT, _FRESH), self._checkpoint())
        if name in (VKEY, POLICY):
            return Reply(200, _headers(_TEXT, _FRESH), self._files.words(name))
        if name.startswith(_PROOF):
            seq = _sequence(name.removeprefix(_PROOF))
            return Reply(200, _headers(_TEXT, _FRESH), self.proof(seq).encode())
        if not name.startswith("tile/"):
            raise NotFound(
                "the log has no such file",
                hint="There is: checkpoint, vkey, policy, tile/... and proof/{seq}",
            )
        return Reply(200, _headers(_BYTES, _IMMUTABLE), self._files.read(parse_path(name)))

    def _checkpoint(self) -> bytes:
        note = self._files.checkpoint()
        if note is None:
            raise NotFound("the log has no checkpoint yet", hint="Its first follows in a second")
        return note

    def proof(self, seq: int) -> LogProof:
        """The proof that a record is in the log, under the checkpoint that is published now.

        Raises:
            NotFound: that checkpoint does not cover the record.
        """
        note = self._checkpoint().decode()
        head = parse_checkpoint(parse_note(note).text)
        if seq >= head.size:
            raise NotFound(
                f"the log's checkpoint covers {head.size} records, not yet number {seq}",
                hint="Ask again in a second, or for a record that there is",
            )
        index, place = divmod(seq, TILE_WIDTH)
        bundle = Bundle(index, min(TILE_WIDTH, head.size - index * TILE_WIDTH))
        entry = decode_bundle(self._files.read(bundle), bundle.width)[place]
        hashes = inclusion_proof(seq, head.size, TileNodes(self._files.read, head.size).read)
        return LogProof(seq, hashes, note, Evidence(entry).encode())

    # --- waiting -----------------------------------------------------------------------------

    async def proof_soon(self, node: str, seq: int) -> LogProof | None:
        """The proof of a record that was committed just now, once a checkpoint covers it.

        None after ``limits.PROOF_WAIT_S``, or if too many wait: what was asked for is done and
        recorded all the same, and its proof can be had later. None, too, where another node has
        done it, and this one only gave its answer again: its own front has the proof.
        """
        if node not in ("", self._node) or len(self._waiting) >= limits.PROOF_WAITS_MAX:
            return None
        try:
            async with asyncio.timeout(limits.PROOF_WAIT_S):
                await self._covered(seq + 1)
            return self.proof(seq)
        except (TimeoutError, KeysteadError):
            return None

    async def _covered(self, size: int) -> None:
        if self._size >= size:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[future] = size
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        try:
            await future
        finally:
            self._waiting.pop(future, None)

    async def _watch(self) -> None:
        """Look at the published checkpoint, for all who wait, as long as anybody does."""
        try:
            while self._waiting:
                with suppress(KeysteadError):  # none yet, or the disk fails: who waits has a bound
                    note = parse_note(self._checkpoint())
                    self._size = parse_checkpoint(note.text).size
                for future, size in list(self._waiting.items()):
                    if size <= self._size and not future.done():
                        future.set_result(None)
                await asyncio.sleep(_POLL_S)
        finally:
            self._watching = None


def _sequence(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > _SEQ_DIGITS_MAX:
        raise MalformedRequest("expected a record's number, as its receipt has it")
    return int(text)


def _headers(content_type: bytes, cache: bytes) -> HeaderList:
    return [
        (b"content-type", content_type),
        (b"cache-control", cache),
        *(item for item in JSON_HEADERS[1:] if item[0] != b"cache-control"),
    ]
