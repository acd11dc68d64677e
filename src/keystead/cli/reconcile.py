"""``keystead log reconcile``: hold what is met in the world to the log, to find a stolen key.

What verifies under one of this node's keys and has no record was not signed by this node. The
verifying is done here, from public keys; the node is asked for records only.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from keystead import limits
from keystead.cli.command import command
from keystead.cli.log import app
from keystead.cli.options import Operator
from keystead.cli.reconcile_looking import Answer, look_up
from keystead.cli.reconcile_reading import Seen, read_source
from keystead.cli.show import note, render, table
from keystead.errors import KeysteadError
from keystead.keys.artefacts import KINDS, Artefact, Kind
from keystead.keys.commands import KeyInfo, Reconciled, SeenMessage, Tally
from keystead.keys.signers import Attribution, Keyring, Signer
from keystead.keys.verify import PublicKey

if TYPE_CHECKING:
    from keystead.client import Client

__all__ = ["Report", "Told", "Verdict", "reconcile"]

_KEYS_A_PAGE = 100
_ROWS_SHOWN = 200
_COLUMNS = ("artefact", "where", "key", "v", "verdict", "record", "")

Tell = Callable[[str, int, int], None]
"""What is done, how many of it, of how many."""


class Verdict(StrEnum):
    """What is said of an artefact, the worst first."""

    UNRECORDED = "unrecorded"
    FORGOTTEN = "forgotten"
    UNVERIFIED = "does not verify"
    MALFORMED = "malformed"
    RECORDED = "recorded"
    OWN = "own certificate"
    NOT_OURS = "not ours"


_ORDER = {verdict: place for place, verdict in enumerate(Verdict)}


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One artefact and what is said of it. ``sha256``: of it, to find it by; it is not repeated."""

    where: str
    verdict: Verdict
    kind: str = ""
    artefact: str = ""
    sha256: str = ""
    key: str = ""
    version: int = 0
    state: str = ""
    seq: int | None = None
    problem: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How many of each, and all of them as they were met."""

    counts: dict[Verdict, int]
    artefacts: list[Told]


class _Signed(msgspec.Struct, frozen=True):
    place: int
    artefact: Artefact


@command(
    app,
    "reconcile",
    "keystead log reconcile access-tokens.txt --key shop-tokens",
    "keystead log reconcile /srv/certificates --kind x509 --json",
    "keystead log reconcile https://ct.example/shop.example.json",
)
def reconcile(
    operator: Operator,
    *,
    sources: Annotated[
        list[str],
        typer.Argument(metavar="FILE|DIR|URL...", help="Where artefacts are; - for stdin."),
    ],
    key: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Try only this key; again for each. Else all that fit."),
    ] = None,
    kind: Annotated[
        Literal["auto", "jwt", "x509", "ssh", "firmware", "ledger"],
        typer.Option(help="What all of them are."),
    ] = "auto",
) -> None:
    """Whether the log holds the use that made each artefact; status 1 if it lacks one."""
    only = None if kind == "auto" else Kind(kind)
    with _progress(operator) as tell:
        seen = _read(sources, only, tell)
        with operator.connect() as client:
            keyring = _keyring(client, seen, key)
            told = _judge(seen, keyring, client, tell)
    report = Report(counts=Counter(one.verdict for one in told), artefacts=told)
    render(operator, report, lambda: [table(_COLUMNS, map(_row, _worst(told)))])
    note(operator, *_says(report))
    trouble = _tally(operator, told)
    if report.counts.get(Verdict.UNRECORDED):
        for error in trouble:
            note(operator, f"The node did not take the alert: {error}")
        raise typer.Exit(1)
    for error in trouble:
        raise error


def _read(sources: Sequence[str], kind: Kind | None, tell: Tell) -> list[Seen]:
    from keystead.cli.fetching import fetch  # noqa: PLC0415  the HTTP client, if it is asked for

    found: list[Seen] = []
    for source in sources:
        for seen in read_source(source, kind, fetch):
            if len(found) >= limits.ARTEFACTS_MAX:
                raise typer.BadParameter(
                    f"more than {limits.ARTEFACTS_MAX} artefacts: give fewer at a time",
                    param_hint="FILE",
                )
            found.append(seen)
            tell("reading", len(found), 0)
    if all(seen.foreign for seen in found):
        raise typer.BadParameter(
            f"expected artefacts, met none in {', '.join(sources)[:200]}", param_hint="FILE"
        )
    return found


def _keyring(client: Client, seen: Sequence[Seen], names: Sequence[str] | None) -> Keyring:
    if names:
        return Keyring(client.public_key(name) for name in names)
    kinds = {one.artefact.kind for one in seen if one.artefact is not None}
    purposes = sorted({KINDS[kind] for kind in kinds})
    return Keyring(_public(key) for purpose in purposes for key in _keys(client, purpose))


def _keys(client: Client, purpose: str) -> Iterator[KeyInfo]:
    after = ""
    while page := client.list_keys(purpose=purpose, after=after, limit=_KEYS_A_PAGE):
        yield from page
        after = page[-1].name


def _public(key: KeyInfo) -> PublicKey:
    return PublicKey(name=key.name, purpose=key.purpose, versions=key.versions, id=key.id)


# --- judging -------------------------------------------------------------------------------------


def _judge(seen: Sequence[Seen], keyring: Keyring, client: Client, tell: Tell) -> list[Told]:
    told: list[Told] = []
    signed: defaultdict[Signer, list[_Signed]] = defaultdict(list)
    for place, one in enumerate(seen):
        tell("verifying", place, len(seen))
        if one.artefact is None:
            told.append(Told(where=one.where, verdict=Verdict.MALFORMED, problem=one.problem))
            continue
        found = keyring.attribute(one.artefact)
        told.append(_first(one.where, one.artefact, found))
        if told[-1].verdict is Verdict.UNRECORDED:
            for signer in found.signers:
                signed[signer].append(_Signed(place, one.artefact))
    for signer, items in signed.items():
        for item, answer in zip(items, _look_up(client, signer, items, tell), strict=True):
            told[item.place] = _better(told[item.place], signer, answer)
    return told


def _first(where: str, artefact: Artefact, found: Attribution) -> Told:
    """What is said before the node is asked: what verifies has no record until it is found."""
    signer = found.signers[0] if found.signers else found.named
    verdict = Verdict.UNRECORDED if found.signers else Verdict.UNVERIFIED
    if found.own:
        verdict = Verdict.OWN
    return Told(
        where=where,
        kind=artefact.kind,
        artefact=artefact.label,
        sha256=artefact.digest,
        verdict=Verdict.NOT_OURS if signer is None else verdict,
        key=signer.key if signer else "",
        version=signer.version if signer else 0,
        state=signer.state if signer else "",
    )


def _look_up(client: Client, signer: Signer, items: Sequence[_Signed], tell: Tell) -> list[Answer]:
    def look(seen: Sequence[SeenMessage], after: int, before: int | None) -> Reconciled:
        return client.reconcile_records(
            signer.key, seen, version=signer.version, after=after, before=before
        )

    def progress(found: int, _told: Reconciled) -> None:
        tell(f"looking for uses of {signer.key}", found, len(items))

    return look_up([item.artefact for item in items], look, progress)


def _better(told: Told, signer: Signer, answer: Answer) -> Told:
    """The best that any signer's records say; two versions have one key only by a mistake."""
    if told.verdict is Verdict.RECORDED:
        return told
    verdict: Verdict = told.verdict
    if answer.seq is not None:
        verdict = Verdict.RECORDED
    elif answer.forgotten:
        verdict = Verdict.FORGOTTEN
    return msgspec.structs.replace(
        told,
        verdict=verdict,
        seq=answer.seq,
        key=signer.key,
        version=signer.version,
        state=signer.state,
    )


def _tally(operator: Operator, told: Sequence[Told]) -> list[KeysteadError]:
    """Have the node record what came of it, a key's version each; what went wrong with that."""
    counts: defaultdict[tuple[str, int], Counter[Verdict]] = defaultdict(Counter)
    for one in told:
        if one.verdict in {Verdict.RECORDED, Verdict.UNRECORDED, Verdict.FORGOTTEN}:
            counts[one.key, one.version][one.verdict] += 1
    trouble: list[KeysteadError] = []
    with operator.connect() as client:
        for (name, version), count in counts.items():
            tally = Tally(
                recorded=count[Verdict.RECORDED],
                unrecorded=count[Verdict.UNRECORDED],
                forgotten=count[Verdict.FORGOTTEN],
            )
            try:
                client.tally_reconciled(name, tally, version=version)
            except KeysteadError as error:
                trouble.append(error)
    return trouble


# --- showing -------------------------------------------------------------------------------------


def _worst(told: Sequence[Told]) -> list[Told]:
    return sorted(told, key=lambda one: _ORDER[one.verdict])[:_ROWS_SHOWN]


def _row(one: Told) -> tuple[object, ...]:
    return (
        f"{one.kind} {one.artefact}".strip(),
        one.where,
        one.key,
        one.version or None,
        str(one.verdict),
        one.seq,
        one.problem or (one.sha256[:16] if one.verdict is Verdict.UNRECORDED else ""),
    )


def _says(report: Report) -> Iterator[str]:
    counts = report.counts
    total = len(report.artefacts)
    parts = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts.get(verdict))
    yield f"{total} artefacts: {parts}"
    if total > _ROWS_SHOWN:
        yield f"The table has the worst {_ROWS_SHOWN}; --json has all"
    if counts.get(Verdict.UNRECORDED):
        yield "Somebody signs with a key of this node, and not by this node. Revoke the version:"
        lost = {(one.key, one.version) for one in report.artefacts if one.verdict == "unrecorded"}
        for name, version in sorted(lost):
            yield f"  keystead key revoke {name} --version {version} --reason '...'"


@contextmanager
def _progress(operator: Operator) -> Iterator[Tell]:
    """A progress bar where a person looks."""
    if operator.as_json or not sys.stderr.isatty():
        yield lambda _what, _done, _total: None
        return
    from rich.console import Console  # noqa: PLC0415  see show.render
    from rich.progress import Progress  # noqa: PLC0415  as above

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=None)

        def tell(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        yield tell
