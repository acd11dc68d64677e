"""What people and programs read: tables and panels, or one JSON document; errors on stderr.

What a node tells is text of strangers: it is shown without control characters and never as markup.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from keystead.cli.options import Output
from keystead.errors import KeysteadError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from keystead.client import Receipt

__all__ = [
    "facts",
    "instant",
    "note",
    "panel",
    "plain",
    "print_error",
    "print_json",
    "receipt_note",
    "render",
    "table",
]

_PIPE_WIDTH = 4096
"""Columns where nobody looks at a terminal: a cell is cut at a person's width only."""
_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")
_STYLES = {
    "active": "green",
    "ok": "green",
    "yes": "green",
    "suspended": "yellow",
    "deactivated": "dim",
    "destroyed": "dim",
    "compromised": "bold red",
    "recorded": "green",
    "unrecorded": "bold red",
    "forgotten": "yellow",
    "does not verify": "yellow",
    "malformed": "yellow",
    "pass": "green",
    "hold": "yellow",
    "fail": "bold red",
    "off": "dim",
    "weaker": "bold red",
    "incomparable": "bold red",
    "stronger": "green",
    "compatibility": "yellow",
}
"""Cells that a person looks for; a record's denial is any other outcome."""


def render(output: Output, value: object, draw: Callable[[], Iterable[RenderableType]]) -> None:
    """Show a result: as JSON what ``value`` is, else what ``draw`` makes of it."""
    if output.as_json:
        print_json(value)
        return
    from rich.console import Console  # noqa: PLC0415  JSON needs no tables

    sys.stdout.flush()
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    console = Console(highlight=False, markup=False, emoji=False, width=width)
    for part in draw():
        console.print(part)


def print_json(value: object) -> None:
    """One JSON document on stdout; byte strings in standard base64."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2)
    sys.stdout.write(text.decode() + "\n")
    sys.stdout.flush()


def note(output: Output, *lines: str) -> None:
    """Words for a person beside the result: on stderr, and not with ``--json``."""
    if not output.as_json:
        sys.stderr.writelines(f"{plain(line)}\n" for line in lines)


def receipt_note(output: Output, receipt: Receipt) -> None:
    """Where a use stands in the log, for a person."""
    place = "follows in the log" if receipt.seq is None else f"is record {receipt.seq}"
    again = "; it had been done before, under the same idempotency key" if receipt.replayed else ""
    note(
        output,
        f"{receipt.key} version {receipt.version} ({receipt.algorithm}); the use {place}"
        f" (request {receipt.request_id}){again}",
    )


def print_error(error: KeysteadError, status: int, *, as_json: bool, code: str = "") -> None:
    """A refusal or failure on stderr: what, what to do next, and the node's request id.

    ``code``: in place of the error's own; an error without one is named after its class.
    """
    notes = [plain(text) for text in getattr(error, "__notes__", ())]
    if as_json:
        document = {
            "code": code or error.code or _CAPITAL.sub("_", type(error).__name__).lower(),
            "error": error.message,
            "hint": error.hint,
            "notes": notes,
            "exit_status": status,
        }
        sys.stderr.write(msgspec.json.encode(document).decode() + "\n")
        return
    sys.stderr.write(f"keystead: {plain(error.message)}\n")
    for text in filter(None, [error.hint, *notes]):
        sys.stderr.write(f"  {plain(text)}\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> RenderableType:
    """Rows under columns; ``None`` is shown as nothing."""
    from rich import box  # noqa: PLC0415  see render
    from rich.table import Table  # noqa: PLC0415  see render
    from rich.text import Text  # noqa: PLC0415  see render

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        cells = [plain(cell) for cell in row]
        made.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in cells))
    return made


def facts(members: Mapping[str, object]) -> RenderableType:
    """Names and values, one a line; what is empty is left out."""
    from rich.table import Table  # noqa: PLC0415  see render

    made = Table.grid(padding=(0, 2))
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in members.items():
        if value not in ("", None, (), [], {}):
            made.add_row(name, plain(value))
    return made


def panel(title: str, members: Mapping[str, object]) -> RenderableType:
    """Names and values in a frame."""
    from rich.panel import Panel  # noqa: PLC0415  see render

    return Panel(facts(members), title=plain(title), title_align="left", expand=False)


def plain(value: object) -> str:
    """A value as one line of printable text."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case dict():
            return ", ".join(f"{plain(name)}={plain(item)}" for name, item in value.items())
        case list() | tuple():
            return ", ".join(map(plain, value))
        case _:
            return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(value))


def instant(time_ms: object) -> str:
    """A Unix time in milliseconds as people read it, in UTC."""
    if not isinstance(time_ms, int):
        return ""
    try:
        return f"{datetime.fromtimestamp(time_ms // 1000, UTC):%Y-%m-%d %H:%M:%SZ}"
    except (OverflowError, ValueError, OSError):
        return f"{time_ms} ms"
