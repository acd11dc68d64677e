"""What a compromised version signed: whether the log proves that it is older than the compromise.

The signature by itself says nothing any more, as whoever has the key can make it. A record of the
log does: the vault made the very same message under that version, and committed it before the
version was declared compromised. So does one proof file with the record disclosed, offline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec
import typer

from keystead.cli.files import read_bytes, read_text
from keystead.cli.options import Common, Operator
from keystead.cli.show import note, print_error
from keystead.errors import KeysteadError, MalformedRequest, SignedByCompromised
from keystead.keys.artefacts import Window
from keystead.keys.commands import SeenMessage
from keystead.keys.revoking import Place, older
from keystead.keys.verify import PublicKey, before_compromise
from keystead.translog.entries import commitment, decode_body
from keystead.translog.notes import parse_vkey
from keystead.translog.policy import policy_of
from keystead.translog.proofs import evidence_of, parse_proof, verify_proof

if TYPE_CHECKING:
    from keystead.client import Client

__all__ = ["BEFORE", "NO_RECORD", "Before", "Signed", "Verifier", "held", "tell"]

BEFORE, NO_RECORD = 6, 7
"""Exit status: the log has it from before the compromise; the log has no record of it."""

_OPERATIONS = ("revoke", "key.move")
"""What declares a version compromised."""

T = TypeVar("T")


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """What was signed, by which version (0: whichever), and when, by its own word."""

    message: bytes
    version: int = 0
    close: Window | None = None
    wide: Window | None = None


class Before(msgspec.Struct, frozen=True, kw_only=True):
    """The record that stands before the compromise; ``compromise``: -1: its record is not known."""

    version: int
    node: str
    seq: int
    epoch: int
    compromise: int
    compromised_epoch: int


@dataclass(frozen=True, kw_only=True)
class Verifier(Operator):
    """Whose signature it should be, and how the log is asked about a compromised version's."""

    key: Annotated[
        str | None, typer.Option(metavar="NAME", help="The key that signed, asked of the node.")
    ] = None
    key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its public part, as key public --json gives it."),
    ] = None
    records: Annotated[
        list[Path] | None,
        typer.Option(
            "--log-proof",
            metavar="FILE",
            help="If the version is compromised: a record of the use, as log prove --disclose"
            " gives it; again for each. Else the node is asked, if there is an operator's token.",
        ),
    ] = None
    log_key: Annotated[
        str | None,
        typer.Option(metavar="VKEY", help="The log's verifier key, or its file: with --log-proof."),
    ] = None

    def public_key(self) -> PublicKey:
        """The public part to verify with.

        Raises:
            BadParameter: neither key nor file was named, or both.
            MalformedRequest: a file that holds something else.
        """
        if (self.key is None) == (self.key_file is None):
            raise typer.BadParameter("give --key, or --key-file", param_hint="--key")
        if self.key is not None:
            with Common(as_json=self.as_json, url=self.url).connect() as client:
                return client.public_key(self.key)
        path = self.key_file or Path()
        try:
            return msgspec.json.decode(read_bytes(path, "--key-file"), type=PublicKey)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise MalformedRequest(
                f"{path} is no public part of a key", hint="keystead key public NAME --json is"
            ) from exc

    def may_ask(self) -> bool:
        """Whether somebody is here who may read the log."""
        try:
            self.token()
        except typer.BadParameter:
            return False
        return True


def held(
    verifier: Verifier,
    verify: Callable[[PublicKey], T],
    signed: Callable[[PublicKey], Sequence[Signed]],
) -> tuple[T, tuple[Before, ...]]:
    """What ``verify`` gives, and the records that stand before a compromise, if it takes them.

    ``signed``: what was signed, by a public key's versions.

    Raises:
        SignedByCompromised: and nobody knows whether it is older.
        Exit: the log has no record of it.
        KeysteadError: whatever else does not hold.
    """
    key = verifier.public_key()
    lost: dict[int, SignedByCompromised] = {}
    found = _lifted(key, verify, lost)
    if not lost:
        return found, ()
    asked = [one for one in signed(key) if one.version in lost or not one.version]
    return found, tuple(_before(verifier, key, one, lost) for one in asked)


def _lifted(
    key: PublicKey, verify: Callable[[PublicKey], T], lost: dict[int, SignedByCompromised]
) -> T:
    """What ``verify`` gives, with versions taken as before their compromise: those in ``lost``."""
    try:
        return verify(key)
    except SignedByCompromised as error:
        if error.version in lost or not error.version:
            raise
        lost[error.version] = error
    return _lifted(before_compromise(key, [*lost][-1]), verify, lost)


def tell(verifier: Verifier, before: Sequence[Before]) -> None:
    """Say where the log proves it, and end with the status of that."""
    if not before:
        return
    first = before[0]
    record = f"record {first.compromise}, " * (first.compromise >= 0)
    note(
        verifier,
        f"Version {first.version} was compromised since. Record {first.seq} of node"
        f" {first.node or '(asked)'} (epoch {first.epoch}) stands before the compromise"
        f" ({record}epoch {first.compromised_epoch}): `keystead log prove {first.seq}"
        " --disclose` proves it to others",
        *[f"and {len(before) - 1} more, each before it"] * (len(before) > 1),
    )
    raise typer.Exit(BEFORE)


# --- one message ---------------------------------------------------------------------------------


def _before(
    verifier: Verifier, key: PublicKey, signed: Signed, lost: dict[int, SignedByCompromised]
) -> Before:
    number = signed.version or next(iter(lost))
    error = lost[number]
    if not error.compromised_epoch:
        raise error
    if verifier.records:
        found, compromise = _proven(verifier, key, signed, number), None
    elif verifier.may_ask():
        found, compromise = _recorded(verifier, key, signed, number, error)
    else:
        raise _hinted(error, "Give an operator's token, or --log-proof, to have the log looked at")
    if found is None:
        raise _unrecorded(verifier, error)
    declared = compromise or Place(node="", seq=-1, epoch=error.compromised_epoch)
    if not older(found, declared):
        raise _hinted(
            error,
            f"Record {found.seq} (epoch {found.epoch}) does not stand before the compromise (epoch"
            f" {declared.epoch}): the vault signs nothing under such a version, so that log or"
            " public part are not what they were",
        )
    return Before(
        version=number,
        node=found.node,
        seq=found.seq,
        epoch=found.epoch,
        compromise=declared.seq,
        compromised_epoch=declared.epoch,
    )


def _hinted(error: SignedByCompromised, hint: str) -> SignedByCompromised:
    error.hint = hint
    return error


def _unrecorded(verifier: Verifier, error: SignedByCompromised) -> typer.Exit:
    looked = "none of the proofs is of it" if verifier.records else "the log has no record of it"
    hinted = _hinted(error, f"{looked}: it may have been made with the stolen key")
    print_error(hinted, NO_RECORD, as_json=verifier.as_json)
    return typer.Exit(NO_RECORD)


# --- by a proof file -----------------------------------------------------------------------------


def _proven(verifier: Verifier, key: PublicKey, signed: Signed, number: int) -> Place | None:
    """The place that one of the proof files proves for the message.

    Raises:
        BadParameter: no verifier key was given.
        SignatureInvalid, MalformedRequest: a file that proves nothing.
    """
    if verifier.log_key is None:
        raise typer.BadParameter(
            "the log's verifier key is needed, from where you trust it", param_hint="--log-key"
        )
    text = verifier.log_key
    log = parse_vkey((text if "+" in text else read_text(Path(text), "--log-key")).strip())
    for path in verifier.records or ():
        proof = parse_proof(read_bytes(path, "--log-proof"))
        evidence = evidence_of(proof)
        verify_proof(proof, evidence.entry, policy_of(log))
        if evidence.disclosure is None:
            raise MalformedRequest(
                f"{path} proves a record without showing it",
                hint="`keystead log prove SEQ --disclose` writes one that does",
            )
        body = decode_body(evidence.disclosure.body)
        is_of_it = (
            body.outcome == "ok"
            and body.seq == proof.index
            and body.key == key.id
            and body.version == number
            and body.signed == commitment(evidence.disclosure.salt, signed.message)
        )
        if is_of_it:
            return Place(node=body.node, seq=body.seq, epoch=body.epoch)
    return None


# --- by asking -----------------------------------------------------------------------------------


def _recorded(
    verifier: Verifier, key: PublicKey, signed: Signed, number: int, error: SignedByCompromised
) -> tuple[Place | None, Place | None]:
    """The places of the use and of the compromise, as the logs of the nodes that are asked say.

    Raises:
        SignedByCompromised: a node could not be asked, or a forgotten record may be of it.
    """
    found: Place | None = None
    compromise: Place | None = None
    forgotten = False
    for url in verifier.address.split(","):
        try:
            with replace(verifier, url=url.strip()).connect() as client:
                seq, gone = _seq_of(client, key.name, number, signed)
                forgotten = forgotten or gone
                if seq is not None and found is None:
                    found = _place(client, seq)
                if compromise is None:
                    compromise = _declared(client, key.name, error.compromised_epoch)
        except KeysteadError as trouble:
            raise _hinted(error, f"The log could not be asked: {trouble.message}") from trouble
    if found is None and forgotten:
        raise _hinted(error, "A record that was forgotten may be of it; nobody can tell any more")
    return found, compromise


def _seq_of(client: Client, name: str, number: int, signed: Signed) -> tuple[int | None, bool]:
    """The record of a message in the log of one node, and whether a forgotten one may be it."""
    gone = False
    for window in _windows(signed):
        seen = SeenMessage(
            message=signed.message,
            since_ms=None if window is None else window.since_ms,
            until_ms=None if window is None else window.until_ms,
        )
        after, end, gone = -1, False, False
        while not end:
            told = client.reconcile_records(name, [seen], version=number, after=after)
            if told.found:
                return told.found[0].seq, False
            gone = gone or bool(told.forgotten)
            after, end = told.next, told.end
    return None, gone


def _windows(signed: Signed) -> Iterator[Window | None]:
    """The second that it names, then all the time that it leaves."""
    if signed.close is not None:
        yield signed.close
    yield signed.wide


def _place(client: Client, seq: int) -> Place:
    [record] = client.log(after=seq - 1, before=seq + 1, limit=1)
    return Place(node=str(record.body.get("node", "")), seq=seq, epoch=record.epoch)


def _declared(client: Client, name: str, epoch: int) -> Place | None:
    """The record of the compromise, if it stands in this node's log."""
    for operation in _OPERATIONS:
        for record in client.log(key=name, operation=operation, outcome="ok", limit=1_000):
            if record.epoch == epoch:
                node = str(record.body.get("node", ""))
                return Place(node=node, seq=record.seq, epoch=epoch)
    return None
