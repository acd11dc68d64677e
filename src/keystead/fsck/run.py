"""One run over a data folder: what is signed, the records in order, then what is left of files.

The node may go on meanwhile, so the order counts: a signed head is read before the records that it
is over, and the names of files before the last record is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from keystead import limits
from keystead.errors import MalformedRequest
from keystead.fsck.chunks import BLOCK, Place
from keystead.fsck.edges import Edges, Walked
from keystead.fsck.erasures import unnamed
from keystead.fsck.files import CHECKPOINT, Files
from keystead.fsck.findings import Finding, Findings, differs
from keystead.fsck.growth import Growth
from keystead.fsck.heads import Head, open_head
from keystead.fsck.rows import Rows
from keystead.fsck.state import State, load, save
from keystead.fsck.words import check_policy, read_key
from keystead.fsck.workers import looked_at
from keystead.translog.lines import HASH_BYTES
from keystead.translog.notes import VerifierKey
from keystead.translog.tiles import Tile, TileNodes
from keystead.translog.tree import root_of

__all__ = ["LOG", "REGISTRY", "Options", "Report", "verify"]

REGISTRY, LOG = "registry.db", "log"
"""Of a data folder: its database, and the folder of what is published."""

Tell = Callable[[int, int, int], None]
"""Told how many records were looked at, of how many, and how many findings there are."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What is verified. ``anchor``: the name of an anchor, and what it holds."""

    data: Path
    key: VerifierKey | None = None
    anchor: tuple[str, bytes] | None = None
    state: Path | None = None
    processes: int = 1


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. ``trust``: whose word the key is. ``resumed``: records not looked at again.

    ``findings``: all of them, of which some are ``shown``. ``notes``: what is worth knowing, and
    nothing is wrong with.
    """

    log: str
    trust: str
    records: int
    published: int
    checkpoints: int
    forgotten: int
    resumed: int
    findings: int
    shown: list[Finding]
    notes: list[str]


def verify(options: Options, tell: Tell) -> Report:
    """Verify a log from storage, and write nothing of it.

    Raises:
        StartupError, LogUnavailable: the database or the state cannot be used.
        MalformedRequest: the state is another file's, or another log's.
    """
    rows = Rows(options.data / REGISTRY)
    try:
        return _Run(options, rows, tell).run()
    finally:
        rows.close()


class _Run:
    def __init__(self, options: Options, rows: Rows, tell: Tell) -> None:
        self._options = options
        self._rows = rows
        self._tell = tell
        self._files = Files(options.data / LOG)
        self._signed = Findings()
        self._left = Findings()
        self._notes: list[str] = []

    def run(self) -> Report:
        key, trust, findings = read_key(self._files, self._options.key)
        self._signed.add(findings)
        outer, published = self._outer(key)
        for said in check_policy(self._files, key):
            if isinstance(said, str):
                self._notes.append(said)
            else:
                self._signed.add([said])
        place = Place(
            registry=str(self._options.data / REGISTRY),
            log=str(self._options.data / LOG),
            key=key,
            published=published,
            outer=outer,
        )
        log = "" if key is None else key.encode()
        state = self._resumed(log)
        resumed = state.size
        self._signed.add(self._again(outer, resumed))
        growth = Growth(state, self._files, published)
        size, _ = self._size(published)
        self._walk(place, growth, state, size // BLOCK * BLOCK)
        edges = Edges(self._files, self._rows, published)
        self._left.add(edges.list(state.size))
        last_head = self._rows.last_head()
        size, beyond = self._size(published)
        tail = self._walk(place, growth, state, max(size, state.size))
        self._left.add(edges.check(Walked(state.size, state.levels, tail)))
        self._left.add(self._ahead(outer, state.size, last_head, beyond=beyond))
        forgotten, wrong = unnamed(self._rows, state.forgotten, state.named, state.size)
        self._left.add(wrong)
        self._remark(resumed, published, edges.left_over, growth.more)
        if self._options.state is not None:
            self._options.state.unlink(missing_ok=True)
        every = (self._signed, state.findings, self._left)
        return Report(
            log=log,
            trust=trust,
            records=state.size,
            published=published,
            checkpoints=state.checkpoints,
            forgotten=forgotten,
            resumed=resumed,
            findings=sum(part.total for part in every),
            shown=[one for part in every for one in part.kept][: limits.FSCK_FINDINGS_MAX],
            notes=self._notes,
        )

    # --- what is signed ----------------------------------------------------------------------

    def _outer(self, key: VerifierKey | None) -> tuple[tuple[Head, ...], int]:
        """The published and the anchor's heads, and the published size."""
        named = [(CHECKPOINT, self._files.read(CHECKPOINT))]
        if self._options.anchor is not None:
            name, data = self._options.anchor
            named.append((f"anchor {name}", data))
        heads: list[Head] = []
        published = 0
        for place, note in named:
            if note is None:
                continue
            head, findings = open_head(place, note, key)
            self._signed.add(findings)
            if head is not None:
                heads.append(Head(head.size, head.root, place))
                published = head.size if place == CHECKPOINT else published
        return tuple(heads), published

    def _ahead(
        self, outer: tuple[Head, ...], size: int, last_head: int, *, beyond: bool
    ) -> Iterator[Finding]:
        """What says that there were more records than there are, and records out of all order."""
        removed = "records were removed, or an older database was put back"
        for head in outer:
            if head.size > size:
                yield Finding(
                    head.place, f"at most the {size} records", f"{head.size} signed", removed
                )
            elif head.place == CHECKPOINT and head.size > last_head:
                yield Finding(
                    f"checkpoint row of size {head.size}",
                    "a row, or one of a greater size",
                    f"none greater than {last_head}",
                    "it was removed, or an older database was put back: this size was published",
                )
        for other in self._rows.heads_outside(size, limits.FSCK_FINDINGS_MAX):
            if other <= last_head:
                yield Finding(
                    f"checkpoint row of size {other}",
                    f"at most the {size} records, and one at least",
                    f"{other} signed",
                    removed,
                )
        bound = size if beyond else 2**63 - 1
        for seq in self._rows.outside(bound, limits.FSCK_FINDINGS_MAX):
            yield Finding(
                f"record {seq}",
                f"sequences from 0 to {size - 1}",
                str(seq),
                "its sequence was altered, or the records before it were removed",
            )

    # --- going on ----------------------------------------------------------------------------

    def _resumed(self, log: str) -> State:
        path = self._options.state
        state = None if path is None else load(path)
        if state is None:
            return State(log=log)
        if state.log != log:
            raise MalformedRequest(
                f"expected a state of this log in {path}, met one of {state.log or 'no key'}",
                hint="Name another file, or remove it",
            )
        met = Growth(state, self._files, 0).root(Head(state.size, b"", ""))
        if self._rows.size() >= state.size and self._root_there(state.size) == met:
            return state
        self._notes.append(
            f"the state in {path} is of other first {state.size} records than there are, or than"
            " the published tiles are of: all were looked at again"
        )
        return State(log=log)

    def _again(self, outer: tuple[Head, ...], resumed: int) -> Iterator[Finding]:
        """Heads over records that are not looked at again, held to the published tiles."""
        for head in outer:
            met = self._root_there(head.size) if 0 < head.size <= resumed else head.root
            if met != head.root:
                yield differs(head.place, head.root, met, "the tiles are not those that it signs")

    def _root_there(self, size: int) -> bytes | None:
        """The root that the published tiles have at a size; None if they do not make one."""

        def fetch(tile: Tile) -> bytes:
            return self._files.widest(tile)[1][: tile.width * HASH_BYTES]

        try:
            return root_of(size, TileNodes(fetch, size).read)
        except MalformedRequest:
            return None

    # --- walking -----------------------------------------------------------------------------

    def _size(self, published: int) -> tuple[int, bool]:
        """Records that are walked over, and whether there are some far beyond."""
        size = self._rows.size()
        signed = max(published, self._rows.last_head())
        if size <= signed + limits.FSCK_GAP_MAX:
            return size, False
        bound = max(signed, self._rows.count()) + limits.FSCK_GAP_MAX
        return min(size, bound), size > bound

    def _walk(
        self, place: Place, growth: Growth, state: State, size: int
    ) -> list[tuple[bytes, bytes]]:
        """Look at the records up to a size; gives what is behind the last full tile."""
        step = limits.FSCK_CHUNK
        stretches = [(at, min(at + step, size)) for at in range(state.size, size, step)]
        many = size - state.size > limits.FSCK_ALONE_MAX
        processes = self._options.processes if many else 1
        tail: list[tuple[bytes, bytes]] = []
        for chunk in looked_at(place, stretches, processes):
            state.findings.add(chunk.findings.kept)
            state.findings.total += chunk.findings.total - len(chunk.findings.kept)
            if 0 <= chunk.began < state.epoch:
                means = "epochs only grow: records stand in another's place, or were altered"
                where = f"records from {chunk.first}, column epoch"
                state.findings.add(
                    [Finding(where, f"{state.epoch} at least", str(chunk.began), means)]
                )
            state.findings.add(growth.take(chunk))
            state.epoch = max(state.epoch, chunk.epoch)
            state.checkpoints += chunk.checkpoints
            state.forgotten += chunk.forgotten
            state.named += chunk.named
            tail = chunk.tail
            self._keep(state)
            self._tell(state.size, size, state.findings.total)
        return tail

    def _keep(self, state: State) -> None:
        path = self._options.state
        if path is None or state.size % limits.FSCK_STATE_EVERY:
            return
        if not save(path, state):
            self._notes.append(f"too much is known to be kept in {path} from now on")
            self._options = msgspec.structs.replace(self._options, state=None)

    def _remark(self, resumed: int, published: int, left_over: int, more: int) -> None:
        notes = self._notes
        if resumed:
            notes.append(
                f"an earlier run looked at the first {resumed} records, their tiles and their"
                " checkpoints, and they were not looked at again; its findings are among these"
            )
        if not published:
            notes.append("no checkpoint is published")
        if left_over:
            notes.append(f"{left_over} files were never put in place, as after a crash: harmless")
        if more:
            notes.append(f"{more} checkpoints behind the first false one are false, too")
