"""``keystead history``: each change of authority and policy, or what was in force at one point."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import typer

from keystead.cli.command import alone, command
from keystead.cli.log_search import now_ms
from keystead.cli.options import Operator
from keystead.cli.parsing import instant_ms
from keystead.cli.show import instant, panel, plain, render, table
from keystead.differences import Difference
from keystead.keys.rollout.commands import HistoryEntry

if TYPE_CHECKING:
    from rich.console import RenderableType

    from keystead.client import Client

__all__ = ["app", "history"]

app = alone()

_PAGE = 200
_SHOWN_DIFFERENCES = 8
_CHANGES = ("epoch", "seq", "when", "who", "action", "object", "rev", "differences", "reason")
_IN_FORCE = ("object", "rev", "epoch", "since record", "since", "until record")


class _Which(TypedDict):
    kind: str | None
    at_seq: int | None
    at_ms: int | None


@command(
    app,
    "history",
    "keystead history shop-tokens",
    "keystead history --kind rotation --limit 20",
    "keystead history shop-tokens --at-seq 1042",
    "keystead history --at-time 2026-11-03T14:00:00Z --json",
)
def history(
    operator: Operator,
    *,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Of this key; of another kind by its id.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="Only of a key, rotation, tenant, revocation, emergency or credential.",
        ),
    ] = None,
    at_seq: Annotated[
        int | None,
        typer.Option(metavar="SEQ", min=0, help="What was in force when this record was made."),
    ] = None,
    at_time: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Or then: 2h or 3d ago, or 2026-11-03T14:00:00Z."),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="The most to show.")] = 50,
) -> None:
    """Changes of keys, plans, rollouts, budgets and revocations, newest first, and which way.

    With --at-seq or --at-time in place of that what was in force then.
    """
    if at_seq is not None and at_time is not None:
        raise typer.BadParameter("goes without --at-seq", param_hint="--at-time")
    at_ms = None if at_time is None else instant_ms(at_time, "--at-time", now_ms())
    which = _Which(kind=kind, at_seq=at_seq, at_ms=at_ms)
    with operator.connect() as client:
        found = _pages(client, name, which, limit)
    if at_seq is None and at_ms is None:
        render(operator, found, lambda: [table(_CHANGES, map(_change_row, found))])
    else:
        render(operator, found, lambda: _in_force(found))


def _pages(client: Client, name: str | None, which: _Which, limit: int) -> list[HistoryEntry]:
    found: list[HistoryEntry] = []
    before: int | None = None
    while True:
        page = client.history(name, before=before, limit=min(limit - len(found), _PAGE), **which)
        found.extend(page.entries)
        if page.end or len(found) >= limit:
            return found[:limit]  # a page may hold the whole of its last change
        before = page.next


def _change_row(entry: HistoryEntry) -> tuple[object, ...]:
    return (
        entry.epoch,
        entry.seq if entry.seq >= 0 else "before",
        instant(entry.time_ms) if entry.time_ms else None,
        entry.principal or ("(by itself)" if entry.action.startswith("rollout.") else None),
        entry.action,
        f"{entry.kind} {entry.name or entry.id}",
        entry.revision,
        _differences(entry.differences),
        entry.reason,
    )


def _differences(differences: tuple[Difference, ...]) -> str:
    """The first ones, each with its direction; ``--json`` has all, with the reason of each."""
    said = [
        f"{d.path}: {d.before or 'none'} -> {d.after or 'none'} ({d.direction})"
        for d in differences[:_SHOWN_DIFFERENCES]
    ]
    left = len(differences) - len(said)
    return "; ".join([*said, f"and {left} more"] if left else said)


def _in_force(found: list[HistoryEntry]) -> Iterator[RenderableType]:
    """One object in full, or many, a line each."""
    if len(found) != 1:
        yield table(_IN_FORCE, map(_force_row, found))
        return
    entry = found[0]
    members: dict[str, object] = dict(_flat(entry.doc))
    since = "older than the history" if entry.seq < 0 else f"record {entry.seq}"
    told = {
        "in force from": f"{since}, epoch {entry.epoch}",
        "until": f"record {entry.until_seq}" if entry.until_seq >= 0 else "now",
    }
    title = f"{entry.kind} {entry.name or entry.id}, revision {entry.revision}"
    yield panel(plain(title), told | members)


def _force_row(entry: HistoryEntry) -> tuple[object, ...]:
    return (
        f"{entry.kind} {entry.name or entry.id}",
        entry.revision,
        entry.epoch,
        entry.seq if entry.seq >= 0 else "before",
        instant(entry.time_ms) if entry.time_ms else None,
        entry.until_seq if entry.until_seq >= 0 else "in force",
    )


def _flat(doc: dict[str, Any], above: str = "") -> Iterator[tuple[str, object]]:
    """The document's members by their dotted names; items of lists that have members by number."""
    for name, value in doc.items():
        path = f"{above}{name}"
        if isinstance(value, dict):
            yield from _flat(value, f"{path}.")
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            yield from _flat({str(n): item for n, item in enumerate(value, start=1)}, f"{path}.")
        else:
            yield path, value
