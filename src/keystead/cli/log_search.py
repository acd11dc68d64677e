"""``keystead log search`` and ``show``: what was done, refused and changed, by whom, and when."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from keystead.cli.command import command
from keystead.cli.log import app
from keystead.cli.options import Operator
from keystead.cli.parsing import instant_ms
from keystead.cli.show import instant, panel, plain, render, table
from keystead.cli.signals import signals_end_quietly
from keystead.errors import NotFound
from keystead.keys.commands import CountBy, RecordInfo
from keystead.keys.purposes import Purpose

if TYPE_CHECKING:
    from keystead.client import Client
    from keystead.client.admin import Filters

__all__ = ["now_ms", "scanning"]

_PAGE = 500
_POLL_S = 1.0
_LAST_SHOWN = 10
_BAR = 40
_COLUMNS = ("seq", "time", "operation", "outcome", "key", "v", "context", "who", "reason")
_GONE = {"forgotten": "(forgotten)", "withheld": "(body withheld)"}


@dataclass(frozen=True, kw_only=True)
class Which:
    """Which records; each narrows."""

    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="From then on: 2h or 3d ago, or 2026-11-03T14:00:00Z."),
    ] = None
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Before then.")] = None
    key: Annotated[str | None, typer.Option(metavar="NAME", help="Of this key.")] = None
    version: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Of this version of its key.")
    ] = None
    purpose: Annotated[Purpose | None, typer.Option(help="Of keys of this purpose.")] = None
    handle: Annotated[
        str | None, typer.Option(metavar="ID", help="Under this handle, by its id.")
    ] = None
    principal: Annotated[str | None, typer.Option(metavar="NAME", help="By this principal.")] = None
    outcome: Annotated[
        str | None, typer.Option(metavar="CODE", help="ok, a denial's code, or denied for any.")
    ] = None
    operation: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of this operation, such as jwt.sign.")
    ] = None
    request: Annotated[
        str | None, typer.Option(metavar="ID", help="Of this request, by the node's own id.")
    ] = None
    after: Annotated[int | None, typer.Option(metavar="SEQ", min=-1, help="After this record.")] = (
        None
    )
    before: Annotated[
        int | None, typer.Option(metavar="SEQ", min=0, help="Before this record.")
    ] = None

    def filters(self, at_ms: int) -> Filters:
        """As the client takes them.

        Raises:
            BadParameter: a time that is none.
        """
        return {
            "key": self.key,
            "version": self.version,
            "purpose": None if self.purpose is None else str(self.purpose),
            "handle_id": self.handle,
            "principal": self.principal,
            "outcome": self.outcome,
            "operation": self.operation,
            "request_id": self.request,
            "since_ms": None if self.since is None else instant_ms(self.since, "--since", at_ms),
            "until_ms": None if self.until is None else instant_ms(self.until, "--until", at_ms),
            "after": self.after,
            "before": self.before,
        }


@dataclass(frozen=True, kw_only=True)
class How:
    """What becomes of them."""

    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="The most to show.")] = None
    oldest_first: Annotated[
        bool, typer.Option("--oldest-first", help="Else the newest come first.")
    ] = False
    follow: Annotated[
        bool, typer.Option("--follow", help="Show the last ones, and go on as they come.")
    ] = False
    count_by: Annotated[
        CountBy | None, typer.Option(help="Count them by this, in place of showing them.")
    ] = None


@command(
    app,
    "search",
    "keystead log search --key shop-tokens --since 2h",
    "keystead log search --outcome denied --principal ci --oldest-first --json",
    "keystead log search --since 2026-11-03T14:00:00Z --until 2026-11-03T15:00:00Z --count-by key",
    "keystead log search --outcome denied --follow --json",
)
def search(operator: Operator, which: Which, how: How) -> None:
    """Records, newest first; on a long log it shows how far it has come."""
    if how.follow and (how.count_by or how.oldest_first or which.before is not None):
        raise typer.BadParameter(
            "goes with neither --count-by nor --oldest-first nor --before", param_hint="--follow"
        )
    filters = which.filters(now_ms())
    with signals_end_quietly(), operator.connect() as client:
        if how.follow:
            _follow(operator, client, filters, how.limit or _LAST_SHOWN)
        elif how.count_by:
            _count(operator, client, filters, how.count_by)
        else:
            found = _search(operator, client, filters, how)
            render(operator, found, lambda: [table(_COLUMNS, map(_row, found))])


@command(app, "show", "keystead log show 1042")
def show(
    operator: Operator,
    *,
    seq: Annotated[int, typer.Argument(metavar="SEQ", min=0, help="Its place in the log.")],
) -> None:
    """One record in full, with its entry and leaf in the tree."""
    with operator.connect() as client:
        found = client.log(after=seq - 1, before=seq + 1, limit=1)
    if not found:
        raise NotFound(f"the log has no record {seq}")
    record = found[0]
    members = {
        **(record.body or _columns(record)),
        "time_ms": f"{record.time_ms} ({instant(record.time_ms)})",
        "entry": record.entry,
        "leaf": record.leaf,
        "body": record.state,
    }
    render(operator, record, lambda: [panel(f"record {seq}", members)])


# --- looking -------------------------------------------------------------------------------------


def _search(operator: Operator, client: Client, filters: Filters, how: How) -> list[RecordInfo]:
    wanted = how.limit or 50
    found: list[RecordInfo] = []
    with scanning(operator) as tell:
        while True:
            page = client.search_log(
                oldest_first=how.oldest_first, limit=min(wanted - len(found), _PAGE), **filters
            )
            found.extend(page.records)
            if page.end or len(found) >= wanted:
                return found
            if how.oldest_first:
                tell(page.next + 1, page.top + 1, len(found))
                filters = {**filters, "after": page.next}
            else:
                tell(page.top - page.next + 1, page.top + 1, len(found))
                filters = {**filters, "before": page.next}


def _count(operator: Operator, client: Client, filters: Filters, by: CountBy) -> None:
    counts: Counter[str] = Counter()
    with scanning(operator) as tell:
        while True:
            look = client.count_log(by, **filters)
            counts.update(look.counts)
            if look.end:
                break
            tell(look.top - look.next + 1, look.top + 1, counts.total())
            filters = {**filters, "before": look.next}
    values = sorted(counts.items()) if by == "hour" else counts.most_common()
    told = [{"value": _value(by, value), "count": count} for value, count in values]
    most = max(counts.values(), default=0)
    rows = [(_value(by, value), count, "█" * round(_BAR * count / most)) for value, count in values]
    render(operator, told, lambda: [table((by, "records", ""), rows)])


def _follow(operator: Operator, client: Client, filters: Filters, last: int) -> None:
    page = client.search_log(limit=min(last, _PAGE), **filters)
    _tell(operator, reversed(page.records))
    at = page.top
    while True:
        onward: Filters = {**filters, "after": at}
        page = client.search_log(oldest_first=True, limit=_PAGE, **onward)
        _tell(operator, page.records)
        at = max(at, page.next)
        if page.end:
            time.sleep(_POLL_S)


def _tell(operator: Operator, records: Iterable[RecordInfo]) -> None:
    """One line a record, at once: whoever reads along sees it now."""
    for record in records:
        if operator.as_json:
            sys.stdout.write(msgspec.json.encode(record).decode() + "\n")
        else:
            sys.stdout.write("  ".join(filter(None, map(plain, _row(record)))) + "\n")
    sys.stdout.flush()


@contextmanager
def scanning(operator: Operator) -> Iterator[Callable[[int, int, int], None]]:
    """A progress bar for what takes several requests; told (looked at, of so many, found)."""
    if operator.as_json or not sys.stderr.isatty():
        yield lambda _done, _total, _found: None
        return
    from rich.console import Console  # noqa: PLC0415  few searches last so long
    from rich.progress import Progress  # noqa: PLC0415  as above

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("looking", total=None)

        def tell(done: int, total: int, found: int) -> None:
            bar.update(task, completed=done, total=total, description=f"{found} found")

        yield tell


# --- showing -------------------------------------------------------------------------------------


def _row(record: RecordInfo) -> tuple[object, ...]:
    body = record.body
    return (
        record.seq,
        instant(record.time_ms),
        record.operation,
        record.outcome,
        record.name or record.key,
        record.version or None,
        body.get("context"),
        record.principal or record.handle,
        body.get("reason") or body.get("detail") or _GONE.get(record.state),
    )


def _columns(record: RecordInfo) -> dict[str, object]:
    """What is known of a record without its body."""
    told: dict[str, object] = msgspec.structs.asdict(record)
    return {name: value for name, value in told.items() if name not in {"body", "state"}}


def _value(by: CountBy, value: str) -> str:
    if by != "hour":
        return value or "(none)"
    return f"{datetime.fromtimestamp(int(value) / 1000, UTC):%Y-%m-%dT%H:00Z}"


def now_ms() -> int:
    """The time here, from which times such as 2h are counted back."""
    return time.time_ns() // 1_000_000
