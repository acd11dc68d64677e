"""``keystead handle``: issue, narrow, inspect and revoke handles.

A token is shown once, where it is made, or written to a file of mode 0600. Narrowing and inspecting
ask no node: a holder can do both alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keystead.cli.command import command, group
from keystead.cli.delivery import delivery
from keystead.cli.narrowings import NarrowingFlags, caveat_facts, caveat_words
from keystead.cli.options import Holder, Operator, Output
from keystead.cli.revoking import Many, Reason, act, need_reason
from keystead.cli.show import instant, note, panel, plain, render
from keystead.keys.caveats import Operations
from keystead.keys.handles import Handle, attenuate
from keystead.keys.narrowing import caveats_of

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["app"]

app = group("handle", "Issue, narrow, inspect and revoke handles.")

Key = Annotated[str, typer.Argument(metavar="KEY", help="The key.")]
Out = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Where the token goes, mode 0600; else stdout, this once."),
]


@dataclass(frozen=True, kw_only=True)
class Revoker(Operator, Holder):
    """An operator who may have the handle at hand."""


@command(
    app,
    "issue",
    "keystead handle issue shop-tokens --principal checkout --context-prefix auth/eu --ttl 30d"
    " --rate 100/60s --out checkout.handle",
    "keystead handle issue boot --principal ci --uses 5 --bind ed25519:@ci.pub.pem",
    "keystead handle issue shop-tokens --principal gateway --operation report"
    " --operation acknowledge --out gateway.handle",
)
def issue(
    key: Key,
    operator: Operator,
    flags: NarrowingFlags,
    *,
    principal: Annotated[str, typer.Option(metavar="NAME", help="Who it is for.")],
    out: Out = None,
) -> None:
    """Issue a handle of a key; how long it lives is by the vault's clock."""
    operations = None if flags.operation is None else tuple(flags.operation)
    ttl_s, narrowing = flags.ttl_s, flags.narrowing()
    with operator.connect() as client, delivery(operator, out, private=True) as deliver:
        made = client.issue_handle(
            key, principal, operations=operations, ttl_s=ttl_s, narrowing=narrowing
        )
        told = {"key": made.key, "principal": made.principal}
        deliver(_token(made.handle), _told(made.handle) | told, content=_secret(made.handle))
    _say(operator, made.handle, out)


@command(
    app,
    "attenuate",
    "keystead handle attenuate --handle-file checkout.handle --context-prefix auth/eu/shop"
    " --ttl 15m --out till.handle",
)
def attenuate_(holder: Holder, flags: NarrowingFlags, *, out: Out = None) -> None:
    """Make a narrower child of a handle, without asking anyone; time is by this machine's clock."""
    ttl_s = flags.ttl_s
    narrowing = flags.narrowing(
        operations=None if flags.operation is None else tuple(flags.operation),
        not_after_ms=None if ttl_s is None else _now_ms() + ttl_s * 1000,
    )
    caveats = caveats_of(narrowing)
    if not caveats:
        raise typer.BadParameter(
            "a child is narrower than its parent: give at least one narrowing",
            param_hint="--ttl, --context-prefix, ...",
        )
    child = attenuate(holder.handle(), *caveats)
    with delivery(holder, out, private=True) as deliver:
        deliver(_token(child), _told(child), content=_secret(child))
    _say(holder, child, out)


@command(app, "inspect", "keystead handle inspect --handle-file till.handle")
def inspect(holder: Holder) -> None:
    """What a handle allows, read offline; whether it holds, only the vault can tell."""
    handle, now_ms = holder.handle(), _now_ms()
    told = _told(handle)
    caveats = handle.caveats
    members = {
        **told,
        "operations": _operations(handle),
        "caveats": [caveat_facts(caveat, now_ms) for caveat in caveats],
    }
    words = {str(n): caveat_words(caveat, now_ms) for n, caveat in enumerate(caveats, start=1)}

    def draw() -> list[RenderableType]:
        first = panel(f"handle {told['handle_id']}", {**told, "operations": _operations(handle)})
        return [first, panel("narrowed", words)] if words else [first]

    render(holder, members, draw)


@command(
    app,
    "revoke",
    "keystead handle revoke 6f1c0e55aa04c4a1c3b0a4d1f2e3a4b5 --reason 'laptop lost'",
    "keystead handle revoke --handle-file till.handle --reason 'till stolen'",
    "keystead handle revoke --key shop-tokens --reason 'INC-7'",
    "keystead handle revoke --tenant shop --dry-run",
)
def revoke(
    operator: Revoker,
    many: Many,
    *,
    link: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="A handle's id, or that of a link, as inspect shows."),
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="NAME", help="All handles of this key.")
    ] = None,
    reason: Reason = None,
) -> None:
    """Revoke a handle and all its children; or all handles of a key, or of many keys at once.

    The keys go on; new handles can be issued. All that is chosen ends in one commit.
    """
    chosen = many.given()
    ways = [link is not None, operator.handle_file is not None, key is not None, bool(chosen)]
    if sum(ways) != 1:
        raise typer.BadParameter(
            "give an id, --handle-file, --key, or choose by --purpose, --tenant or --label",
            param_hint="ID",
        )
    if key is not None:
        chosen["key"] = key
    elif not chosen:
        handle = None if link is not None else operator.handle()
        chosen["handle"] = link or _named(handle, dry_run=many.dry_run)
    chosen["what"] = "handles"
    if not many.dry_run:
        need_reason(reason)
    with operator.connect() as client:
        act(operator, client, chosen, reason=reason, dry_run=many.dry_run)


def _named(handle: Handle | None, *, dry_run: bool) -> str:
    """What a handle is revoked by: its own last link; uses are counted by the handle's id."""
    if handle is None:
        return ""
    return handle.body.handle_id if dry_run else handle.chain_id


@command(app, "revoke-all", "keystead handle revoke-all shop-tokens --reason 'INC-7'")
def revoke_all(
    key: Key,
    operator: Operator,
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for the record.")],
) -> None:
    """Revoke all handles of a key; the key itself goes on."""
    with operator.connect() as client:
        after = client.revoke_key_handles(key, reason=reason)
    told = f"Revoked all handles of {plain(after.name)}; its generation is {after.generation} now."
    render(operator, after, lambda: [told])


@command(app, "show", "keystead handle show 3b0a4d1f2e3a4b5c6d7e8f90")
def show(
    operator: Operator,
    *,
    handle_id: Annotated[str, typer.Argument(metavar="ID", help="The handle's id.")],
) -> None:
    """What the vault knows of a handle: whose it is, and of which key."""
    with operator.connect() as client:
        found = client.show_handle(handle_id)
    members = {
        "key": found.key,
        "principal": found.principal,
        "tenant": found.tenant,
        "issued": instant(found.issued_ms),
    }
    render(operator, found, lambda: [panel(f"handle {found.handle_id}", members)])


def _token(handle: Handle) -> bytes:
    return f"{handle.reveal()}\n".encode()


def _secret(handle: Handle) -> dict[str, object]:
    return {"token": handle.reveal()}


def _say(output: Output, handle: Handle, out: Path | None) -> None:
    place = "The token is shown this once; keep it" if out is None else f"Keep {out}"
    words = f"Handle {handle.body.handle_id} for {handle.body.purpose}, link {handle.chain_id}."
    note(output, f"{words} {place} like a password.")


def _told(handle: Handle) -> dict[str, object]:
    body = handle.body
    return {
        "handle_id": body.handle_id,
        "purpose": str(body.purpose),
        "key_id": body.key_id,
        "generation": body.generation,
        "link": handle.chain_id,
    }


def _operations(handle: Handle) -> list[str]:
    """What is left of the operations after every caveat."""
    left = set(handle.body.operations)
    for caveat in handle.caveats:
        if isinstance(caveat, Operations):
            left &= set(caveat.operations)
    return sorted(left)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
