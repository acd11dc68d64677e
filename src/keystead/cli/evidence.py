"""``keystead log``: the tree head, proofs of single records, and copies of the whole tree."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from keystead import limits
from keystead.cli.command import command
from keystead.cli.files import destination, read_bytes, read_text
from keystead.cli.log import app
from keystead.cli.options import Common, Operator, Output
from keystead.cli.show import instant, note, panel, render
from keystead.errors import MalformedRequest, NotFound, ProofInvalid
from keystead.translog.checkpoints import open_checkpoint
from keystead.translog.entries import decode_body
from keystead.translog.notes import Note, VerifierKey, parse_vkey
from keystead.translog.policy import PolicyWitness, WitnessPolicy, parse_policy, policy_of
from keystead.translog.proofs import (
    Disclosure,
    Evidence,
    LogProof,
    evidence_of,
    parse_proof,
    verify_proof,
)
from keystead.translog.tiles import TILE_WIDTH, Bundle, decode_bundle

if TYPE_CHECKING:
    from keystead.client import Client

__all__ = ["checkpoint", "export", "go_on", "prove", "verify"]

_Key = Annotated[
    str | None,
    typer.Option("--key", metavar="VKEY", help="The log's verifier key, or a file that holds it."),
]
_PAUSE_S = 0.2
_TIME_BYTES = 8  # tlog-cosignature: a cosignature begins with its time
_Proof = Annotated[Path, typer.Argument(metavar="FILE", help="A proof file; - for stdin.")]


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint as it is told. ``trust``: whose word the verifier key is.

    ``cosignatures``: name of the signer and the time it claims, not checked.
    """

    origin: str
    size: int
    root: bytes
    vkey: str
    trust: str
    cosignatures: dict[str, int]
    note: str


@command(
    app,
    "checkpoint",
    "keystead log checkpoint --key-out log.vkey",
    "keystead log checkpoint --key log.vkey --json",
)
def checkpoint(
    common: Common,
    *,
    key: _Key = None,
    key_out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep the verifier key there, to pin it.")
    ] = None,
) -> None:
    """The signed head of the log's tree, checked."""
    with common.connect() as client:
        data = client.log_checkpoint()
        log, trust = _log_key(client, key)
    head, signed = open_checkpoint(data, log)
    if key_out is not None:
        with destination(key_out) as deliver:
            deliver(f"{log.encode()}\n".encode())
    told = Head(
        origin=head.origin,
        size=head.size,
        root=head.root,
        vkey=log.encode(),
        trust=trust,
        cosignatures=_claimed(signed, log),
        note=data.decode(),
    )
    members = {
        "origin": head.origin,
        "records": head.size,
        "root": head.root.hex(),
        "verifier key": told.vkey,
        "it is": trust,
        "cosigned by": {name: instant(at * 1000) for name, at in told.cosignatures.items()},
    }
    render(common, told, lambda: [panel("checkpoint", members)])


@command(
    app,
    "prove",
    "keystead log prove 1042 --out 1042.proof",
    "keystead log prove 1042 --disclose --out 1042.proof",
)
def prove(
    operator: Operator,
    *,
    seq: Annotated[int, typer.Argument(metavar="SEQ", min=0, help="The record's number.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the proof goes; else stdout.")
    ] = None,
    disclose: Annotated[
        bool, typer.Option("--disclose", help="With the record itself; takes the operator's right.")
    ] = False,
    key: _Key = None,
) -> None:
    """One file that proves to anyone, offline, that the log holds a record."""
    with destination(out, private=disclose) as deliver:
        shown: Disclosure | None = None
        if disclose:
            with operator.connect() as client:
                told = client.disclose(seq)
                shown = Disclosure(told.body, told.salt)
        with Common(as_json=operator.as_json, url=operator.url).connect() as client:
            proof = parse_proof(_fetched(client, seq))
            log, trust = _log_key(client, key)
        evidence = evidence_of(proof)
        satisfied = verify_proof(proof, evidence.entry, policy_of(log))
        if proof.index != seq:
            raise ProofInvalid(f"expected a proof of record {seq}, met one of {proof.index}")
        if shown is not None:
            evidence = Evidence(evidence.entry, shown)
            proof = msgspec.structs.replace(proof, extra=evidence.encode())
        deliver(proof.encode())
    note(
        operator,
        f"record {seq} is in {log.name} of {satisfied.checkpoint.size} records; its verifier key is"
        f" {trust}",
    )


def _fetched(client: Client, seq: int) -> bytes:
    """The proof, once a checkpoint covers the record: of a use just done, within a second."""
    until_s = time.monotonic() + limits.PROOF_WAIT_S
    while True:
        try:
            return client.log_proof(seq)
        except NotFound:
            if time.monotonic() > until_s:
                raise
        time.sleep(_PAUSE_S)


@command(
    app,
    "go-on",
    "keystead log go-on --reason 'witness w1 is lost, ticket 4711'",
)
def go_on(
    operator: Operator,
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for the record.")],
) -> None:
    """Use keys although an anchor was not heard since the start, because it is lost."""
    with operator.connect() as client:
        went = client.go_on(reason=reason)
    said = went.without or "nothing: the node waited for no anchor"
    render(operator, went, lambda: [panel("the node goes on", {"without": said})])


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What a proof proves. ``record``: its body, if the file discloses it."""

    origin: str
    index: int
    size: int
    entry: bytes
    witnesses: dict[str, int]
    record: msgspec.Raw | None = None


@command(
    app,
    "verify",
    "keystead log verify 1042.proof --key log.vkey",
    "keystead log verify 1042.proof --policy trust.policy --json",
)
def verify(
    output: Output,
    *,
    proof: _Proof,
    key: _Key = None,
    witness: Annotated[
        list[str] | None,
        typer.Option(metavar="VKEY", help="A witness's key; again for each. With --quorum."),
    ] = None,
    quorum: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="How many must have cosigned; else all of them."),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="In place of these: a trust policy (C2SP tlog-policy)."),
    ] = None,
    entry: Annotated[
        str | None,
        typer.Option(metavar="HEX", help="The entry, if the file is another tool's."),
    ] = None,
) -> None:
    """Check a proof file by itself: no node and no database is asked."""
    parsed = parse_proof(read_bytes(proof, "FILE"))
    trusted = _policy(key, witness or [], quorum, policy)
    shown: Disclosure | None = None
    if entry is None:
        evidence = evidence_of(parsed)
        leaf, shown = evidence.entry, evidence.disclosure
    else:
        leaf = _hex(entry)
    satisfied = verify_proof(parsed, leaf, trusted)
    if shown is not None:
        _check_place(shown, parsed)
    verified = Verified(
        origin=satisfied.checkpoint.origin,
        index=parsed.index,
        size=satisfied.checkpoint.size,
        entry=leaf,
        witnesses=satisfied.witnesses,
        record=None if shown is None else msgspec.Raw(shown.body),
    )
    members = {
        "log": verified.origin,
        "record": f"{verified.index} of {verified.size}",
        "entry": leaf.hex(),
        "cosigned by": {name: instant(at * 1000) for name, at in verified.witnesses.items()}
        or "nobody that was asked for",
        **({} if shown is None else msgspec.json.decode(shown.body, type=dict[str, object])),
    }
    render(output, verified, lambda: [panel("the proof holds", members)])


@command(
    app,
    "export",
    "keystead log export /srv/log --key log.vkey",
)
def export(
    common: Common,
    *,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Made, or gone on with.")],
    key: _Key = None,
) -> None:
    """A copy of the published tree as static files, checked as it is made; goes on where it was."""
    from keystead.cli.mirror import Mirror  # noqa: PLC0415  only this command writes tiles

    with common.connect() as client:
        data = client.log_checkpoint()
        log, trust = _log_key(client, key)
        head, _ = open_checkpoint(data, log)
        mirror = Mirror(folder, log)
        begun = mirror.size
        with _progress(common, head.size, begun) as advance:
            for bundle in _bundles(begun, head.size):
                entries = decode_bundle(client.log_tile(bundle), bundle.width)
                mirror.take(bundle, entries)
                advance(bundle.index * TILE_WIDTH + bundle.width)
        mirror.finish(head, data)
    told = {"folder": str(folder), "size": head.size, "was": begun, "root": head.root, "key": trust}
    render(common, told, lambda: [panel("exported", told | {"root": head.root.hex()})])


@contextmanager
def _progress(output: Output, total: int, begun: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr for whoever looks; gives what is told how far it is."""
    if output.as_json or not sys.stderr.isatty():
        yield lambda _at: None
        return
    from rich.console import Console  # noqa: PLC0415  JSON needs no bars
    from rich.progress import Progress  # noqa: PLC0415  as above

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("entries", total=total, completed=begun)
        yield lambda at: bar.update(task, completed=at)


def _claimed(note: Note, log: VerifierKey) -> dict[str, int]:
    """Names and times of those who say that they cosigned; nothing of it is checked here."""
    others = (item for item in note.signatures if item.key_id != log.key_id)
    return {item.name: int.from_bytes(item.data[:_TIME_BYTES], "big") for item in others}


def _bundles(old: int, new: int) -> Iterator[Bundle]:
    for index in range(old // TILE_WIDTH, -(-new // TILE_WIDTH)):
        yield Bundle(index, min(TILE_WIDTH, new - index * TILE_WIDTH))


def _log_key(client: Client, given: str | None) -> tuple[VerifierKey, str]:
    """The key that was pinned, or the one that the node tells; and which it is."""
    if given is not None:
        return _vkey(given, "--key"), "the one you gave"
    return parse_vkey(client.log_vkey()), "the node's own word: pin it with --key"


def _vkey(given: str, option: str) -> VerifierKey:
    text = given if "+" in given else read_text(Path(given), option)
    try:
        return parse_vkey(text.strip())
    except MalformedRequest as exc:
        raise typer.BadParameter(exc.message, param_hint=option) from exc


def _policy(
    key: str | None, witnesses: list[str], quorum: int | None, file: Path | None
) -> WitnessPolicy:
    if file is not None:
        if key is not None or witnesses or quorum is not None:
            raise typer.BadParameter(
                "goes without --key, --witness and --quorum", param_hint="--policy"
            )
        return parse_policy(read_bytes(file, "--policy"))
    if key is None:
        raise typer.BadParameter(
            "the log's verifier key is needed, from where you trust it, or a --policy",
            param_hint="--key",
        )
    named = [_vkey(text, "--witness") for text in witnesses]
    members = [PolicyWitness(item.name, item) for item in named]
    return policy_of(_vkey(key, "--key"), members, len(members) if quorum is None else quorum)


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as exc:
        raise typer.BadParameter("expected hex digits", param_hint="--entry") from exc


def _check_place(shown: Disclosure, proof: LogProof) -> None:
    """A record says its own number; a body at another place would be another record's."""
    if decode_body(shown.body).seq != proof.index:
        raise ProofInvalid(
            f"the disclosed record calls itself {decode_body(shown.body).seq}, the proof is of"
            f" {proof.index}"
        )
