"""``keystead log witness``: a witness of transparency logs, apart from any node."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keystead.cli.command import alone, command
from keystead.cli.options import Output
from keystead.cli.show import facts, note, render
from keystead.errors import MalformedRequest
from keystead.translog.notes import VerifierKey, parse_vkey

if TYPE_CHECKING:
    from keystead.witness.run import Serving

__all__ = ["WitnessFlags", "app", "witness"]

app = alone()


@dataclass(frozen=True, kw_only=True)
class WitnessFlags:
    """What a witness is started with."""

    state: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="Its key and what it remembers. Never copy or restore it."
        ),
    ]
    log: Annotated[
        list[str] | None,
        typer.Option(metavar="VKEY", help="Verifier key of a log that it cosigns; once for each."),
    ] = None
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Its name, at the first start; else a made-up one.")
    ] = ""
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where it listens; port 0 for any free one.")
    ] = "127.0.0.1:8791"
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificate chain of the listener (PEM).")
    ] = None
    tls_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Private key of that certificate (PEM).")
    ] = None
    show_key: Annotated[
        bool, typer.Option("--show-key", help="Show its verifier key, made if it is new, and end.")
    ] = False


@command(
    app,
    "witness",
    "keystead log witness --state /var/lib/witness --log 'VKEY' --name witness.example/w1",
    "keystead log witness --state /var/lib/witness --show-key",
)
def witness(output: Output, flags: WitnessFlags) -> None:
    """Cosign the checkpoints of logs, as long as each grew from the one before."""
    if flags.show_key:
        from keystead.net.system import SystemRandom  # noqa: PLC0415  few commands need them
        from keystead.witness.identity import identify  # noqa: PLC0415  as above

        identity, state = identify(flags.state, flags.name, SystemRandom())
        state.close()
        vkey = identity.key.encode()
        render(output, {"vkey": vkey}, lambda: [vkey])
        return
    from keystead.witness.run import WitnessOptions, run  # noqa: PLC0415  loads an HTTP server

    def tell(serving: Serving) -> None:
        members = {"url": serving.url, "vkey": serving.vkey, "logs": serving.logs}
        render(output, serving, lambda: [facts(members)])
        note(output, "cosigning; Ctrl-C ends it")

    options = WitnessOptions(
        state=flags.state.absolute(),
        logs=tuple(map(_log_key, flags.log or ())),
        name=flags.name,
        listen=flags.listen,
        tls_cert=flags.tls_cert,
        tls_key=flags.tls_key,
    )
    run(options, tell)


def _log_key(text: str) -> VerifierKey:
    try:
        return parse_vkey(text)
    except MalformedRequest as exc:
        raise typer.BadParameter(str(exc), param_hint="--log") from exc
