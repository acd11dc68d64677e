"""``keystead log disclose`` and ``forget``: open one record to a reader, or close many to all."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import msgspec
import typer

from keystead.cli.command import command
from keystead.cli.files import destination
from keystead.cli.log import app
from keystead.cli.log_search import now_ms, scanning
from keystead.cli.options import Operator
from keystead.cli.parsing import instant_ms
from keystead.cli.show import instant, note, panel, render
from keystead.errors import SignatureInvalid
from keystead.keys.commands import Disclosed, Forgotten

if TYPE_CHECKING:
    from keystead.client import Client

__all__ = ["Lost"]


@command(
    app,
    "disclose",
    "keystead log disclose 1042 --reason 'audit 2026-11' --out 1042.json",
)
def disclose(
    operator: Operator,
    *,
    seq: Annotated[int, typer.Argument(metavar="SEQ", min=0, help="Its place in the log.")],
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why and to whom, for the record.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the document goes, mode 0600.")
    ] = None,
) -> None:
    """One record's exact body and its salt, which is recorded; whoever has both can check it."""
    with destination(out, private=True) as write:
        with operator.connect() as client:
            found = client.disclose(seq, reason=reason)
        if hashlib.sha256(found.salt + found.body).digest() != found.entry:
            raise SignatureInvalid(
                f"the body of record {seq} is not that of its entry",
                hint="`keystead log fsck` finds what was altered",
            )
        if out is not None:
            write(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
            note(operator, f"record {seq} is in {out}; its disclosure is a record, too")
            return
    render(operator, found, lambda: [panel(f"record {seq}", _members(found))])


def _members(found: Disclosed) -> dict[str, object]:
    return {
        "body": found.body.decode(errors="replace"),
        "salt": found.salt.hex(),
        "entry": found.entry.hex(),
        "": "entry = SHA-256(salt || body), checked",
    }


# --- forgetting ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which records are forgotten; all that is given narrows, and something must be."""

    before: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Older than this: 90d, or 2026-08-01T00:00:00Z."),
    ] = None
    key: Annotated[str | None, typer.Option(metavar="NAME", help="Uses of this key.")] = None
    handle: Annotated[
        str | None, typer.Option(metavar="ID", help="Uses under this handle, by its id.")
    ] = None
    principal: Annotated[
        str | None, typer.Option(metavar="NAME", help="Uses by this principal.")
    ] = None


class _Chosen(TypedDict):
    before_ms: int | None
    key: str | None
    handle_id: str | None
    principal: str | None
    reason: str


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """What is forgotten, or would be; sequences and times are None if that is nothing."""

    dry_run: bool
    records: int = 0
    first_seq: int | None = None
    last_seq: int | None = None
    first_ms: int | None = None
    last_ms: int | None = None
    scrubbed: bool | None = None

    def __add__(self, batch: Forgotten) -> Lost:
        if not batch.count:
            return self
        firsts = (self.first_ms, batch.first_ms)
        return msgspec.structs.replace(
            self,
            records=self.records + batch.count,
            first_seq=batch.first_seq if self.first_seq is None else self.first_seq,
            last_seq=batch.last_seq,
            first_ms=min(time for time in firsts if time is not None),
            last_ms=max(self.last_ms or 0, batch.last_ms),
        )


@command(
    app,
    "forget",
    "keystead log forget --before 400d --dry-run --reason 'retention of 400 days'",
    "keystead log forget --principal web-7 --reason 'request 2026-118' --yes",
)
def forget(
    operator: Operator,
    choice: Choice,
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for the record.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be lost.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Erase bodies and salts of uses older than a day, for good; no proof of inclusion breaks."""
    before_ms = None if choice.before is None else instant_ms(choice.before, "--before", now_ms())
    chosen = _Chosen(
        before_ms=before_ms,
        key=choice.key,
        handle_id=choice.handle,
        principal=choice.principal,
        reason=reason,
    )
    if not (dry_run or yes) and (operator.as_json or not sys.stdin.isatty()):
        raise typer.BadParameter(
            "it cannot be taken back, and nobody is here to ask: give --yes", param_hint="--yes"
        )
    with operator.connect() as client:
        lost = _batches(operator, client, chosen, dry_run=True)
        if not dry_run and lost.last_seq is not None:
            if not yes:
                note(operator, *_says(lost))
                typer.confirm("Forget them for good?", abort=True, err=True)
            lost = _batches(operator, client, chosen, dry_run=False, through=lost.last_seq)
    lost = msgspec.structs.replace(lost, dry_run=dry_run)
    render(operator, lost, lambda: list(_says(lost)))


def _batches(
    operator: Operator,
    client: Client,
    chosen: _Chosen,
    *,
    dry_run: bool,
    through: int | None = None,
) -> Lost:
    lost, after = Lost(dry_run=dry_run), -1
    with scanning(operator) as tell:
        while True:
            batch = client.forget_records(**chosen, after=after, through=through, dry_run=dry_run)
            lost += batch
            if batch.end:
                scrubbed = None if dry_run else batch.scrubbed
                return msgspec.structs.replace(lost, scrubbed=scrubbed)
            after = batch.next
            tell(after, through or 0, lost.records)


def _says(lost: Lost) -> tuple[str, ...]:
    if lost.last_seq is None:
        return ("No record that can be forgotten is among them.",)
    did = "would be" if lost.dry_run else "were"
    span = f"{instant(lost.first_ms)} to {instant(lost.last_ms)}"
    said = [
        f"{lost.records} records {did} forgotten: {lost.first_seq} to {lost.last_seq}, {span}.",
        "They cannot be disclosed any more, nor found by handle, principal or request. Their time,",
        "operation, outcome, key and version stay, and every proof of inclusion stays valid.",
    ]
    if lost.scrubbed is False:
        said.append("The database was busy: traces are in its write-ahead log until it is reused.")
    return tuple(said)
