"""``keystead status``: whether the node works, and which protections are on."""

from __future__ import annotations

import typer

from keystead.cli.command import alone, command
from keystead.cli.options import Common
from keystead.cli.readiness import Readiness, readiness
from keystead.cli.show import panel, render
from keystead.frames.messages import NodeView

__all__ = ["app"]

app = alone()

_UNAVAILABLE = 3


@command(
    app, "status", "keystead status", "keystead status --url unix:/var/lib/keystead/front.sock"
)
def status(common: Common) -> None:
    """Whether the node works, and which protections are on; exit status 3 if it does not."""
    with common.connect() as client:
        found = client.run(readiness())
    title = "ready" if found.ready else "not ready"
    render(common, found, lambda: [panel(title, _members(common, found))])
    if not found.ready:
        raise typer.Exit(_UNAVAILABLE)


def _members(common: Common, found: Readiness) -> dict[str, object]:
    return {
        "node": f"{found.node} of {found.deployment}" if found.node else "",
        "address": common.address,
        "why not": "; ".join(found.reasons),
        "keys": found.keys,
        "epoch": found.epoch,
        "last record": found.last_seq,
        "nodes": "; ".join(map(_node, found.nodes)),
        **found.protections,
    }


def _node(node: NodeView) -> str:
    """One node of the deployment, with what it said last."""
    parts = [f"{node.node}, holds to epoch {node.epoch}"]
    return ", ".join(parts + ["leads"] * node.leads + [node.url] * bool(node.url))
