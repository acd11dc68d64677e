"""``keystead report``: a relying party says that what a key signed does not verify."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from keystead.cli.command import alone, command
from keystead.cli.options import Common, Holder
from keystead.cli.show import receipt_note, render
from keystead.keys.rollout.reports import Problem

__all__ = ["Key", "Teller", "app", "report"]

app = alone()

Key = Annotated[str, typer.Argument(metavar="KEY", help="The key.")]


@dataclass(frozen=True, kw_only=True)
class Teller(Holder, Common):
    """A relying party: who holds a handle with the operation, and what it says beside."""

    context: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Where; else what the handle is narrowed to."),
    ] = None
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Anything else, for the record.")
    ] = None
    idempotency_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Repeated under the same key, it is told once."),
    ] = None


@command(
    app,
    "report",
    "keystead report shop-tokens --seq 1042 --problem signature --handle-file gateway.handle",
    "keystead report shop-tokens --seq 1042 --problem unknown_key --handle-file gateway.handle"
    " --reason 'gateway 3 has an old key set'",
)
def report(
    key: Key,
    teller: Teller,
    *,
    seq: Annotated[
        int,
        typer.Option(metavar="SEQ", min=0, help="The use's place in the log, from its receipt."),
    ],
    node: Annotated[
        str, typer.Option(metavar="NODE", help="In whose log, from its receipt; else the front's.")
    ] = "",
    problem: Annotated[Problem, typer.Option(help="What is wrong with what it gave.")],
) -> None:
    """Report that what one use of a key gave does not verify; a rollout's gates count it."""
    handle = teller.handle()
    with teller.connect() as client:
        told = client.report_failure(
            key,
            handle,
            seq,
            problem,
            node=node,
            context=teller.context,
            idempotency_key=teller.idempotency_key,
            reason=teller.reason,
        )
    version = told.result.version
    words = f"Reported version {version}, by record {seq}."
    if not told.result.counted:
        words += " You had reported that version before: it counts once."
    render(teller, told, lambda: [words])
    receipt_note(teller, told.receipt)
