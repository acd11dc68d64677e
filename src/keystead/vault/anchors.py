"""Anchors: what outside the data folder remembers how far the log had come (I10).

A copy of the whole folder of yesterday is consistent in itself; only an anchor tells that it is
old. Until every anchor that is configured has been heard at a start, no key is used: what an anchor
says is proven by a signature, never by the word of the process that asked it. A witness's
cosignature counts if it is on a checkpoint that covers the record of this very start, so that none
from before can be played again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec
import structlog

from keystead import limits
from keystead.errors import (
    KeysteadError,
    LogUnavailable,
    MalformedRequest,
    NotFound,
    SignatureInvalid,
    StateRolledBack,
)
from keystead.frames.messages import WitnessView
from keystead.ports import Anchor, Registry
from keystead.translog.checkpoints import check_log_signature
from keystead.translog.cosignatures import verify_cosignature
from keystead.translog.heads import Checkpoint
from keystead.translog.notes import VerifierKey, parse_note
from keystead.translog.tree import Frontier
from keystead.vault.standing import Standing

__all__ = ["AnchorConfig", "Anchors", "anchor_mark"]

_BEHIND = (
    "Do not start it again as it is: put back the newest data folder. If that is lost, revoke what"
    " may have been used since, and go on under a new --node name, which is a new log; see"
    " docs/evidence.md, When a log is behind"
)
_OFF = "off: a restored older copy of the whole data folder is not detected"

_log = structlog.get_logger("keystead.vault")


class AnchorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Which anchors there are. ``quorum``: how many of the witnesses must be heard.

    ``published``: the node's own published checkpoint: not outside, but not the database either.
    """

    file: Anchor | None = None
    published: Anchor | None = None
    witnesses: tuple[VerifierKey, ...] = ()
    quorum: int = 0


def anchor_mark(name: str, node: str = "") -> str:
    """The name of the row that tells that a file was an anchor of this deployment before.

    ``node``: whose; empty: as it was named before there were several.
    """
    told = f"{node}\0{name}" if node else name
    return f"anchor/{hashlib.sha256(told.encode()).hexdigest()[:32]}"


class Anchors:
    """Whether the log is known to be as far as it ever was. All methods run on the loop.

    ``log_key``: the log's verifier key, if it has one yet. ``began``: the sequence of the record of
    this start, if there are witnesses.
    """

    def __init__(
        self,
        *,
        config: AnchorConfig,
        standing: Standing,
        registry: Registry,
        log_key: Callable[[], VerifierKey | None],
        began: int = -1,
    ) -> None:
        self._config = config
        self._standing = standing
        self._registry = registry
        self._log_key = log_key
        self._began = began
        self._heard: dict[str, int] = {}
        self._views: tuple[WitnessView, ...] = ()
        self._file_known = config.file is None
        self._file_trouble = ""
        self._file_size = -1
        self._writing = False
        self._accepted = ""

    # --- at the start ------------------------------------------------------------------------

    def look(self) -> None:
        """Ask the file, and say what is still to be waited for; again and again until it is known.

        Sets ``standing.unanchored``, or ``standing.tampered`` if the log is behind.
        """
        if self._config.published is not None:
            with suppress(LogUnavailable):  # the steward makes it again
                self._hear(self._config.published.read() or b"")
        if not self._file_known and self._config.file is not None:
            try:
                self._ask_file(self._config.file)
                self._file_known, self._file_trouble = True, ""
            except StateRolledBack as found:
                self._behind(found)
            except KeysteadError as exc:
                self._file_trouble = exc.message
        self._settle()

    def _ask_file(self, file: Anchor) -> None:
        note = file.read()
        if note is None:
            if self._is_marked(file):
                raise LogUnavailable(f"the anchor {file.name} was there before and is gone")
            return
        key = self._log_key()
        if key is None:
            raise StateRolledBack(
                f"the anchor {file.name} remembers a checkpoint, and this registry has no log key:"
                " it is older, or another deployment's",
                hint=_BEHIND,
            )
        try:
            head = check_log_signature(parse_note(note), key)
        except (MalformedRequest, SignatureInvalid) as exc:
            raise LogUnavailable(
                f"what the anchor {file.name} holds is no checkpoint of this log: {exc.message}"
            ) from exc
        there = self._registry.last_sequence() + 1
        if there < head.size:
            raise StateRolledBack(
                f"the log has {there} records, its anchor {file.name} remembers {head.size}: an"
                " older copy of the data folder was put back",
                hint=_BEHIND,
            )
        if self._root_at(head.size) != head.root:
            raise StateRolledBack(
                f"the first {head.size} records are not those that the anchor {file.name}"
                " remembers: an older copy of the data folder was put back, and went on",
                hint=_BEHIND,
            )
        self._file_size = head.size

    def _root_at(self, size: int) -> bytes:
        """The root of the first records: of the checkpoint that was signed there, or anew."""
        row = self._registry.checkpoint(size)
        if row is not None:
            return row.root
        frontier = Frontier()
        while frontier.size < size:
            count = min(limits.TREE_ROWS_AT_ONCE, size - frontier.size)
            rows = self._registry.entries_from(frontier.size, count)
            if len(rows) != count:
                return b""
            frontier = frontier.extended(row.leaf for row in rows)
        return frontier.root()

    def _behind(self, found: StateRolledBack) -> None:
        if self._standing.tampered is None:
            _log.error("behind_anchor", problem=found.message)
            self._standing.count("invariant_violations", "I10")
            self._standing.tampered = found

    # --- witnesses ---------------------------------------------------------------------------

    def told(
        self, cosigned: bytes, views: Sequence[WitnessView], behind: Sequence[tuple[str, int]]
    ) -> None:
        """What the steward brings: a cosigned checkpoint, and how the witnesses stand.

        That a witness is ahead is taken on its word: it can only stop what could be stopped anyway.
        """
        names = {key.name for key in self._config.witnesses}
        self._views = tuple(view for view in views if view.name in names)
        for name, size in behind:
            there = self._registry.last_sequence() + 1
            if name in names and size > there:
                self._behind(
                    StateRolledBack(
                        f"the log has {there} records, its witness {name} has cosigned {size}: an"
                        " older copy of the data folder was put back",
                        hint=_BEHIND,
                    )
                )
        if cosigned:
            self._hear(cosigned)
        self._settle()

    def _hear(self, cosigned: bytes) -> None:
        key = self._log_key()
        try:
            note = parse_note(cosigned)
            head: Checkpoint | None = None if key is None else check_log_signature(note, key)
        except (MalformedRequest, SignatureInvalid):
            return  # a steward that brings anything else is not heard
        if head is None:
            return
        there = self._registry.last_sequence() + 1
        row = self._registry.checkpoint(head.size)
        if head.size > there or (row is not None and row.root != head.root):
            self._behind(
                StateRolledBack(
                    f"this log's key has signed {head.size} records that are not the {there} that"
                    " it has: an older copy of the database was put back",
                    hint=_BEHIND,
                )
            )
        if head.size <= self._began:
            return
        for witness in self._config.witnesses:
            try:
                verify_cosignature(note, witness)
            except (NotFound, SignatureInvalid):
                continue
            self._heard[witness.name] = max(head.size, self._heard.get(witness.name, 0))

    # --- waiting -----------------------------------------------------------------------------

    def accept(self, reason: str) -> None:
        """Go on without the anchors that were not heard: a person has decided it."""
        self._accepted = reason
        self._settle()

    @property
    def waiting(self) -> str:
        """What is still to be heard; empty if nothing is."""
        parts = []
        if not self._file_known:
            parts.append(self._file_trouble or "the anchor's file was not asked yet")
        missing = self._config.quorum - len(self._heard)
        if missing > 0:
            silent = [key.name for key in self._config.witnesses if key.name not in self._heard]
            parts.append(f"{missing} more of the witnesses {', '.join(silent)}")
        return "; ".join(parts)

    def _settle(self) -> None:
        waiting = self.waiting
        if not waiting or self._accepted:
            self._standing.unanchored = None
            return
        self._standing.unanchored = LogUnavailable(
            f"no key is used until the log's anchors are heard: {waiting}",
            hint="Bring them back; or, if they are lost: keystead log go-on --reason ...",
            retry_after_s=1.0,
        )

    # --- while it runs -----------------------------------------------------------------------

    def mark(self) -> tuple[str, bytes] | None:
        """The row to write, once, after the file was: from then on it may not be missing."""
        file = self._config.file
        if file is None or self._file_size < 0:
            return None
        if self._is_marked(file):
            return None
        return anchor_mark(file.name, self._standing.node), file.name.encode()

    def _is_marked(self, file: Anchor) -> bool:
        marks = (anchor_mark(file.name), anchor_mark(file.name, self._standing.node))
        return any(self._registry.meta(mark) is not None for mark in marks)

    def signed(self, size: int, note: bytes) -> None:
        """The last checkpoint that was signed: have the file remember it, off the loop."""
        file = self._config.file
        if file is None or self._writing or size <= self._file_size:
            return
        if not (self._file_known or self._accepted):
            return
        self._writing = True
        task = asyncio.get_running_loop().run_in_executor(None, file.write, note)
        task.add_done_callback(lambda done: self._written(size, done))

    def _written(self, size: int, done: asyncio.Future[None]) -> None:
        self._writing = False
        exc = done.exception()
        if exc is None:
            self._file_size, self._file_trouble = size, ""
            return
        trouble = exc.message if isinstance(exc, KeysteadError) else "it failed"
        if trouble != self._file_trouble:  # it is tried again at each checkpoint
            _log.error("anchor_not_written", problem=trouble)
        self._file_trouble = trouble

    def protection(self) -> str:
        """How it stands, in one line, for ``/ready``."""
        config = self._config
        if config.file is None and not config.witnesses:
            return _OFF
        parts = []
        if config.file is not None:
            state = self._file_trouble or (
                f"remembers {self._file_size} records" if self._file_size >= 0 else "new"
            )
            parts.append(f"file {config.file.name}: {state}")
        for view in self._views:
            state = view.trouble or f"cosigned {view.size} records"
            parts.append(f"witness {view.name}: {state}")
        if config.witnesses and not self._views:
            parts.append(f"{len(config.witnesses)} witnesses, not asked yet")
        if self._accepted:
            parts.append(f"started without: {self._accepted}")
        return "; ".join(parts)
