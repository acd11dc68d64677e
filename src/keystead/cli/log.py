"""``keystead log``: what was done, refused and changed, newest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from keystead.cli.command import command, group
from keystead.cli.options import Operator
from keystead.cli.show import instant, panel, render, table
from keystead.errors import NotFound
from keystead.keys.commands import RecordInfo

__all__ = ["app"]

app = group("log", "Search the log of every use, denial and change.")


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which records; each narrows."""

    key: Annotated[str | None, typer.Option(metavar="NAME", help="Of this key.")] = None
    handle: Annotated[
        str | None, typer.Option(metavar="ID", help="Under this handle, by its id.")
    ] = None
    outcome: Annotated[str | None, typer.Option(metavar="CODE", help="ok, or a denial's code.")] = (
        None
    )
    operation: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of this operation, such as jwt.sign.")
    ] = None
    request: Annotated[
        str | None, typer.Option(metavar="ID", help="Of this request, by the node's own id.")
    ] = None
    before: Annotated[
        int | None, typer.Option(metavar="SEQ", min=0, help="Before this record.")
    ] = None
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="The most to show.")] = 50


@command(
    app,
    "search",
    "keystead log search --key shop-tokens --limit 20",
    "keystead log search --outcome handle_revoked --json",
)
def search(operator: Operator, filters: Filters) -> None:
    """Records, newest first."""
    with operator.connect() as client:
        found = client.log(
            key=filters.key,
            handle_id=filters.handle,
            outcome=filters.outcome,
            operation=filters.operation,
            request_id=filters.request,
            before=filters.before,
            limit=filters.limit,
        )
    columns = ("seq", "time", "operation", "outcome", "key", "v", "context", "who", "reason")
    render(operator, found, lambda: [table(columns, map(_row, found))])


@command(app, "show", "keystead log show 1042")
def show(
    operator: Operator,
    *,
    seq: Annotated[int, typer.Argument(metavar="SEQ", min=0, help="Its place in the log.")],
) -> None:
    """One record in full, with its entry and leaf in the tree."""
    with operator.connect() as client:
        found = client.log(before=seq + 1, limit=1)
    if not found or found[0].seq != seq:
        raise NotFound(f"the log has no record {seq}")
    record = found[0]
    members = {
        **record.body,
        "time_ms": f"{record.body.get('time_ms')} ({instant(record.body.get('time_ms'))})",
        "entry": record.entry,
        "leaf": record.leaf,
        "body": record.state,
    }
    render(operator, record, lambda: [panel(f"record {seq}", members)])


def _row(record: RecordInfo) -> tuple[object, ...]:
    body = record.body
    return (
        record.seq,
        instant(body.get("time_ms")),
        body.get("op"),
        body.get("outcome"),
        body.get("name") or body.get("key"),
        body.get("version"),
        body.get("context"),
        body.get("principal") or body.get("handle"),
        body.get("reason") or body.get("detail"),
    )
