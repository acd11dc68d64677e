"""``keystead up``: hands this process over to the composition root, which starts the node."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from keystead.cli.command import alone, command
from keystead.cli.options import Output
from keystead.errors import MalformedRequest
from keystead.keys.model import check_name
from keystead.store.opening import check_database
from keystead.supervisor import NodeOptions
from keystead.translog.notes import parse_vkey

__all__ = ["NodeFlags", "app", "node_options"]

app = alone()


@dataclass(frozen=True, kw_only=True)
class NodeFlags:
    """What a node is started with."""

    data: Annotated[Path, typer.Option(metavar="DIR", help="The data folder, mode 0700.")] = Path(
        ".keystead"
    )
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where it listens; port 0 for any free one.")
    ] = "127.0.0.1:7410"
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificate chain of the listener (PEM).")
    ] = None
    tls_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Private key of that certificate (PEM).")
    ] = None
    database: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="KEYSTEAD_DATABASE",
            help="postgresql://..., without a password; else SQLite in the data folder.",
        ),
    ] = None
    allow_async_standby: Annotated[
        bool,
        typer.Option(
            "--allow-async-standby",
            help="Accept a standby that may lose what was acknowledged, if the primary is lost.",
        ),
    ] = False
    seal_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The seal; else seal.key in the data folder."),
    ] = None
    operator_token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where a first start leaves the operator's token, 0600."),
    ] = None
    node: Annotated[str, typer.Option(metavar="NAME", help="The name of this node.")] = "node1"
    anchor: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="On another disk: remembers how far the log had come."),
    ] = None
    witness: Annotated[
        list[str] | None,
        typer.Option(metavar="URL=VKEY", help="Cosigns the log's checkpoints; again for each."),
    ] = None
    witness_quorum: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="How many must be heard at a start; else most."),
    ] = None
    tour: Annotated[bool, typer.Option("--tour", help="Run the tour once it serves.")] = False
    once: Annotated[bool, typer.Option("--once", help="Run the tour, and end with its status.")] = (
        False
    )


@command(
    app,
    "up",
    "keystead up --data /var/lib/keystead --operator-token-file /etc/keystead/operator.token",
    "keystead up --listen 0.0.0.0:7410 --tls-cert node.pem --tls-key node.key",
    "keystead up --data b --database postgresql://db.internal/keystead --node b --seal-file a.key",
)
def up(output: Output, flags: NodeFlags) -> None:
    """Start everything on the embedded default, and serve until Ctrl-C."""
    config = msgspec.json.encode(node_options(flags, as_json=output.as_json)).decode()
    sys.stdout.flush()
    sys.stderr.flush()
    # -P: what lies in the folder of whoever starts a node is not imported.
    arguments = [sys.executable, "-P", "-m", "keystead.app", "up", "--config-json", config]
    os.execv(sys.executable, arguments)  # noqa: S606  no shell, and every argument is our own


def node_options(flags: NodeFlags, *, as_json: bool) -> NodeOptions:
    """The settings of a node, its paths made absolute.

    Raises:
        BadParameter: one half of a TLS identity.
        MalformedRequest: a bad name.
    """
    if (flags.tls_cert is None) != (flags.tls_key is None):
        raise typer.BadParameter("--tls-cert and --tls-key go together", param_hint="--tls-cert")
    check_name(flags.node, "node name")
    witnesses = tuple(map(_witness, flags.witness or []))
    return NodeOptions(
        data=str(flags.data.absolute()),
        database=None if flags.database is None else check_database(flags.database),
        allow_async_standby=flags.allow_async_standby,
        listen=flags.listen,
        tls_cert=_absolute(flags.tls_cert),
        tls_key=_absolute(flags.tls_key),
        seal_file=_absolute(flags.seal_file),
        operator_token_file=_absolute(flags.operator_token_file),
        node=flags.node,
        tour=flags.tour or flags.once,
        once=flags.once,
        anchor=_absolute(flags.anchor),
        witnesses=witnesses,
        quorum=_quorum(flags.witness_quorum, len(witnesses)),
        json=as_json,
    )


def _witness(text: str) -> tuple[str, str]:
    url, _, vkey = text.partition("=")
    try:
        parse_vkey(vkey)
    except MalformedRequest as exc:
        raise typer.BadParameter(
            f"expected URL=VKEY: {exc.message}", param_hint="--witness"
        ) from exc
    return url, vkey


def _quorum(given: int | None, witnesses: int) -> int:
    """How many witnesses must be heard: as given, else more than half of them."""
    if given is None:
        return witnesses // 2 + 1 if witnesses else 0
    if given > witnesses:
        raise typer.BadParameter(
            f"expected at most the {witnesses} witnesses named", param_hint="--witness-quorum"
        )
    return given


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
