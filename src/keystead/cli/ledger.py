"""``keystead ledger``: append entries, and keep what was signed as lines of a file.

A line is one append: ``sequence``, ``document`` (the exact text that was signed), ``signatures``
(base64, by algorithm) and ``entry``, the name of the file that was entered. ``keystead verify
ledger`` reads these lines.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from keystead.cli.command import command, group
from keystead.cli.files import STDIN_OR_STDOUT, read_bytes
from keystead.cli.options import User
from keystead.cli.show import print_json, receipt_note
from keystead.errors import MalformedRequest
from keystead.keys.framing.ledger import LedgerResult

__all__ = ["LedgerLine", "app", "read_ledger"]

app = group("ledger", "Append to a ledger.")


class LedgerLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a ledger file; see the module."""

    sequence: int
    document: str
    signatures: dict[str, bytes]
    entry: str = ""


@command(
    app,
    "append",
    "keystead ledger append order-1.json order-2.json --context books/2026 --out orders.ledger"
    " --handle-file books.handle",
)
def append(
    user: User,
    *,
    entries: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Entries, in order.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Ledger file to add lines to; else stdout.")
    ] = None,
) -> None:
    """Append each file as one entry; the ledger holds its SHA-256, so keep the files."""
    if user.idempotency_key is not None and len(entries) > 1:
        raise typer.BadParameter(
            "stands for one append: give one file with it", param_hint="--idempotency-key"
        )
    handle = user.handle()
    contents = [(path.name, read_bytes(path, "FILE")) for path in entries]
    done: list[dict[str, object]] = []
    try:
        with user.connect() as client, _ledger(user, out) as add:
            for name, content in contents:
                used = client.append_ledger(handle, content, **user.use())
                add(_line(name, used.result))
                done.append({"entry": name, "result": used.result, "receipt": used.receipt})
                receipt_note(user, used.receipt)
    finally:  # what was appended before a refusal stays so, and is told
        if user.as_json and done:
            print_json({"appended": done} | ({} if out is None else {"out": str(out)}))


def _line(name: str, result: LedgerResult) -> bytes:
    line = LedgerLine(
        sequence=result.sequence,
        document=result.document.decode(),
        signatures=result.signatures,
        entry=name,
    )
    return msgspec.json.encode(line) + b"\n"


@contextmanager
def _ledger(user: User, out: Path | None) -> Iterator[Callable[[bytes], object]]:
    """Where lines go: each is there before the next entry is appended.

    Raises:
        BadParameter: the file cannot be written.
    """
    if out is None or out == STDIN_OR_STDOUT:
        yield (lambda _: None) if user.as_json else _to_stdout
        return
    try:
        file = out.open("ab", buffering=0)
    except OSError as exc:
        raise typer.BadParameter(f"cannot write {out}: {exc.strerror}", param_hint="--out") from exc
    with file:
        yield file.write


def _to_stdout(line: bytes) -> None:
    sys.stdout.write(line.decode())
    sys.stdout.flush()


def read_ledger(path: Path) -> list[LedgerLine]:
    """The lines of a ledger file.

    Raises:
        BadParameter: it cannot be read.
        MalformedRequest: a line that is none.
    """
    lines = read_bytes(path, "LEDGER").splitlines()
    found: list[LedgerLine] = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(msgspec.json.decode(line, type=LedgerLine))
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise MalformedRequest(
                f"line {number} of {path} is no line of a ledger: {exc}",
                hint="keystead ledger append --out writes such a file",
            ) from exc
    return found
