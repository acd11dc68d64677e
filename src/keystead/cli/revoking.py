"""What ``key revoke`` and ``handle revoke`` share: the choice, the dry run, and what is shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from keystead import limits
from keystead.cli.options import Operator
from keystead.cli.parsing import pairs
from keystead.cli.show import instant, note, panel, plain, render, table
from keystead.keys.purposes import Purpose
from keystead.keys.stops import BestEffort, Fence, Previewed, Revoked, StoppedHandle, StoppedKey

if TYPE_CHECKING:
    from rich.console import RenderableType

    from keystead.client import Client
    from keystead.client.revoking import Chosen

__all__ = ["DryRun", "Many", "Reason", "act", "fence_facts", "need_reason"]

_HANDLES_SHOWN = 10_000
_KEYS = ("key", "purpose", "tenant", "what stops", "states", "handles", "uses in 24 h")
_HANDLES = ("handle", "key", "principal", "issued", "uses in 24 h", "")
_PRINCIPALS = ("principal", "handles", "uses in 24 h")
_STOPPED = ("key", "purpose", "tenant", "stopped", "states", "generation")
_WAY = "Or many at once"

Reason = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Why, for the record; a dry run needs none.")
]


@dataclass(frozen=True, kw_only=True)
class Many:
    """Keys chosen by what they are, and whether it is tried only."""

    purpose: Annotated[
        Purpose | None, typer.Option(help="Of keys of this purpose.", rich_help_panel=_WAY)
    ] = None
    tenant: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of all keys of this tenant; narrows --purpose and --label.",
            rich_help_panel=_WAY,
        ),
    ] = None
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Of keys with this label; repeat it for keys with all of them.",
            rich_help_panel=_WAY,
        ),
    ] = None
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Only show what would stop, and how often it was used in 24 h."
        ),
    ] = False

    def given(self) -> Chosen:
        """As the client takes them; empty: none was given.

        Raises:
            BadParameter: a label that is none.
        """
        chosen: Chosen = {}
        if self.purpose is not None:
            chosen["purpose"] = str(self.purpose)
        if self.tenant is not None:
            chosen["tenant"] = self.tenant
        labels = pairs(self.label, "--label")
        if labels:
            chosen["labels"] = labels
        return chosen


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Whose handles would stop."""

    principal: str
    handles: int
    uses: int


class DryRun(msgspec.Struct, frozen=True, kw_only=True):
    """What would stop. ``cut``: there are more handles, or more uses, than are told."""

    dry_run: bool
    keys: tuple[StoppedKey, ...]
    handles: tuple[StoppedHandle, ...]
    principals: tuple[Principal, ...]
    since_ms: int
    logs: tuple[str, ...]
    unread: tuple[str, ...]
    cut: bool


def need_reason(reason: str | None) -> str:
    """The reason, which everything that is done needs.

    Raises:
        BadParameter: there is none.
    """
    if reason is None:
        raise typer.BadParameter("say why: the record keeps it", param_hint="--reason")
    return reason


def act(
    operator: Operator, client: Client, chosen: Chosen, *, reason: str | None, dry_run: bool
) -> None:
    """Revoke what is chosen, or show what would be; and tell what came of it."""
    from keystead.client.revoking import revoke  # noqa: PLC0415  the HTTP client, as it is needed

    if dry_run:
        found = _preview(client, chosen)
        render(operator, found, lambda: _draw_preview(found))
        note(operator, *_says(found))
        return
    done = client.run(revoke(reason=need_reason(reason), **chosen))
    render(operator, done, lambda: _draw(done))
    if done.unread:
        note(operator, _unread(done.unread))


# --- a dry run -----------------------------------------------------------------------------------


def _preview(client: Client, chosen: Chosen) -> DryRun:
    """All pages; of one key all its handles, of many the first of each."""
    keys: list[StoppedKey] = []
    handles: list[StoppedHandle] = []
    page = _page(client, chosen)
    first = page
    while True:
        keys.extend(page.keys)
        handles.extend(page.handles)
        if page.end:
            break
        page = _page(client, chosen, after=page.next)
    if "key" in chosen and keys[0].more_handles:
        keys[0] = _all_handles(client, chosen, keys[0], handles)
    by: dict[str, Counter[str]] = {}
    for handle in handles:
        by.setdefault(handle.principal, Counter()).update(handles=1, uses=handle.uses)
    principals = (
        Principal(principal=name, handles=count["handles"], uses=count["uses"])
        for name, count in by.items()
    )
    return DryRun(
        dry_run=True,
        keys=tuple(keys),
        handles=tuple(handles),
        principals=tuple(sorted(principals, key=lambda one: (-one.uses, one.principal))),
        since_ms=first.since_ms,
        logs=first.logs,
        unread=first.unread,
        cut=any(key.more_handles or key.more_uses for key in keys),
    )


def _page(client: Client, chosen: Chosen, *, after: str = "", handles: str = "") -> Previewed:
    from keystead.client.revoking import preview_revoke  # noqa: PLC0415  as in act

    return client.run(preview_revoke(after=after, handles_after=handles, **chosen))


def _all_handles(
    client: Client, chosen: Chosen, key: StoppedKey, handles: list[StoppedHandle]
) -> StoppedKey:
    more = True
    while more and len(handles) < _HANDLES_SHOWN:
        page = _page(client, chosen, handles=handles[-1].id)
        handles.extend(page.handles)
        more = page.keys[0].more_handles
    return msgspec.structs.replace(key, handles=len(handles), more_handles=more)


def _draw_preview(found: DryRun) -> Iterator[RenderableType]:
    yield table(_KEYS, (_key_row(key) for key in found.keys))
    if found.handles:
        yield table(_PRINCIPALS, ((p.principal, p.handles, p.uses) for p in found.principals))
        yield table(_HANDLES, map(_handle_row, found.handles))


def _key_row(key: StoppedKey) -> tuple[object, ...]:
    return (
        key.name,
        key.purpose,
        key.tenant,
        _versions(key.versions, key.rollout) or "its handles",
        _states(key),
        f"{key.handles}{'+' * key.more_handles}",
        f"{key.uses}{'+' * key.more_uses}",
    )


def _handle_row(handle: StoppedHandle) -> tuple[object, ...]:
    told = "revoked already" if handle.revoked else ""
    issued = instant(handle.issued_ms)
    return handle.id, handle.key, handle.principal, issued, handle.uses, told


def _says(found: DryRun) -> Iterator[str]:
    yield (
        f"Nothing was changed. It would stop {len(found.keys)} keys and {len(found.handles)}"
        f" handles of {len(found.principals)} principals; uses since {instant(found.since_ms)}, by"
        f" the logs of {', '.join(found.logs)}."
    )
    if found.cut:
        yield (
            "A + stands where there are more: of many keys, the first"
            f" {limits.REVOKE_HANDLES_A_KEY} handles of each are shown, and uses are counted as far"
            " as a bounded look goes. Name one key to see all of its handles."
        )
    if found.unread:
        yield _unread(found.unread)


# --- what was done -------------------------------------------------------------------------------


def _draw(done: Revoked) -> Iterator[RenderableType]:
    if done.revoked:
        yield f"Revoked {plain(done.revoked)}, and all below it."
    if done.keys:
        yield table(_STOPPED, (_stopped_row(key) for key in done.keys))
    yield panel("revoked", fence_facts(done.fence, done.best_effort))


def _stopped_row(key: StoppedKey) -> tuple[object, ...]:
    what = _versions(key.versions, key.rollout) or "all handles"
    return key.name, key.purpose, key.tenant, what, _states(key), key.generation


def _versions(versions: Sequence[int], rollout: int) -> str:
    parts = [f"version {', '.join(map(str, versions))}"] * bool(versions)
    return "; ".join(parts + [f"rollout {rollout} paused"] * bool(rollout))


def _states(key: StoppedKey) -> str:
    return ", ".join(f"{number} {state}" for number, state in key.states.items())


def fence_facts(fence: Fence | None, best_effort: BestEffort | None) -> dict[str, object]:
    """Since when it holds, and where: for a person."""
    if fence is None:
        return {}
    members: dict[str, object] = {
        "record": f"{fence.seq} of node {fence.node}",
        "epoch": f"{fence.epoch}: no use of it commits under this one or a later one, on any node",
    }
    if fence.commit_ms is not None:
        members["committed in"] = f"{fence.commit_ms} ms"
    if best_effort is not None:
        members["best effort"] = (
            f"ended everywhere {best_effort.ended_ms} ms after the commit, of"
            f" {best_effort.bound_ms} ms at most"
        )
    return members


def _unread(names: Sequence[str]) -> str:
    return (
        f"A newer Keystead wrote {len(names)} keys that this node cannot read; whether they are"
        f" meant it does not know, and it stops none of them: {', '.join(names[:20])}"
    )
