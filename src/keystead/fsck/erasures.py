"""Records without a body: each must be named by a later record of forgetting, and none else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from keystead import limits
from keystead.fsck.findings import Finding
from keystead.fsck.records import FORGET, Named, read_runs
from keystead.fsck.rows import Rows

__all__ = ["merged", "unnamed", "without"]

Runs = list[tuple[int, int]]


def unnamed(
    rows: Rows, forgotten: Runs, named: Sequence[Named], size: int
) -> tuple[int, Iterator[Finding]]:
    """How many records are forgotten, and what of that does not fit.

    The node may have forgotten some meanwhile, so what was recorded since is looked at, too, and
    what is named as forgotten is asked for again. ``size``: up to which records were read.
    """
    said: list[tuple[int, int]] = [(one.first, one.last) for one in named]
    for _, body in rows.changes_from(size, FORGET):
        if isinstance(body, bytes):
            said += [(one.first, one.last) for one in read_runs(body)]
    count = sum(last - first + 1 for first, last in forgotten)
    return count, _findings(rows, merged(forgotten), merged(said))


def _findings(rows: Rows, forgotten: Runs, named: Runs) -> Iterator[Finding]:
    for first, last in without(forgotten, named):
        yield Finding(
            f"record {first}" if first == last else f"records {first} to {last}",
            "body and salt, or a later record log.forget that names it",
            "neither",
            "somebody else than the node erased it: what it said is lost",
        )
    for seq in rows.kept(without(named, forgotten), limits.FSCK_FINDINGS_MAX):
        yield Finding(
            f"record {seq}, column body",
            "nothing: a later record log.forget names it",
            "a body",
            "it was put back; a start of the node erases it again",
        )


def merged(runs: Iterable[tuple[int, int]]) -> Runs:
    """The same sequences in order, in runs that neither overlap nor touch."""
    made: Runs = []
    for first, last in sorted(runs):
        if made and first <= made[-1][1] + 1:
            made[-1] = (made[-1][0], max(last, made[-1][1]))
        else:
            made.append((first, last))
    return made


def without(runs: Runs, others: Runs) -> Runs:
    """What of rising runs is in no other; both are in order and do not overlap."""
    left: Runs = []
    at = 0
    for first, last in runs:
        begin = first
        while at < len(others) and others[at][1] < begin:
            at += 1
        ahead = at
        while ahead < len(others) and others[ahead][0] <= last:
            if begin < others[ahead][0]:
                left.append((begin, others[ahead][0] - 1))
            begin = max(begin, others[ahead][1] + 1)
            ahead += 1
        if begin <= last:
            left.append((begin, last))
    return left
