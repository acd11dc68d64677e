"""``keystead acknowledge``: a relying party says that it holds a version's public part."""

from __future__ import annotations

from typing import Annotated

import typer

from keystead.cli.command import alone, command
from keystead.cli.rollout_report import Key, Teller
from keystead.cli.show import receipt_note, render

__all__ = ["acknowledge", "app"]

app = alone()


@command(
    app,
    "acknowledge",
    "keystead acknowledge shop-tokens --kid _UQd8TCqk90xsaeQioeIP8 --handle-file gateway.handle",
)
def acknowledge(
    key: Key,
    teller: Teller,
    *,
    kid: Annotated[
        str, typer.Option(metavar="KID", help="Its key id, as in the key set you fetched.")
    ],
) -> None:
    """Say that you hold a version's public part and verify by it; a plan may wait for that."""
    handle = teller.handle()
    with teller.connect() as client:
        told = client.acknowledge_key(
            key,
            handle,
            kid,
            context=teller.context,
            idempotency_key=teller.idempotency_key,
            reason=teller.reason,
        )
    render(teller, told, lambda: [f"Acknowledged version {told.result.version}."])
    receipt_note(teller, told.receipt)
