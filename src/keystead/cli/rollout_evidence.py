"""``keystead key evidence``: all that a rollout was decided on, in one file that proves itself.

The file holds the plan, every decision with its figures, the reports, the records that tell of
them, and for each record the proof that the published log holds it (C2SP tlog-proof).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from keystead import limits
from keystead.cli.command import command
from keystead.cli.files import destination
from keystead.cli.key import Name, app
from keystead.cli.log_search import scanning
from keystead.cli.options import Operator
from keystead.cli.show import note
from keystead.errors import NotFound, ProofInvalid
from keystead.keys.commands import RecordInfo
from keystead.keys.rollout.commands import EvidenceInfo
from keystead.translog.notes import VerifierKey, parse_vkey
from keystead.translog.policy import policy_of
from keystead.translog.proofs import parse_proof, verify_proof

if TYPE_CHECKING:
    from keystead.client import Client

__all__ = ["FORMAT", "Bundle", "evidence"]

FORMAT = "keystead/rollout-evidence/v1"
_PAUSE_S = 0.2


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """The file. ``vkey``: the log's verifier key as the node tells it: compare it with yours.

    ``proofs``: by sequence, each as `keystead log verify` takes it; a record that is not published
    yet, or whose log the node does not serve, has none.
    """

    format: str = FORMAT
    vkey: str
    evidence: EvidenceInfo
    records: list[RecordInfo]
    proofs: dict[int, str]


@command(
    app,
    "evidence",
    "keystead key evidence shop-tokens --out rollout.json",
    "keystead key evidence shop-tokens --number 3 --out rollout-3.json",
)
def evidence(
    name: Name,
    operator: Operator,
    *,
    number: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Which rollout; else the last one.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the document goes, mode 0600; else stdout."),
    ] = None,
) -> None:
    """One JSON document of a rollout: plan, decisions, reports, records, and their proofs."""
    with destination(out, private=True) as write:
        with operator.connect() as client:
            bundle = _bundle(operator, client, client.rollout_evidence(name, number=number))
        write(msgspec.json.format(msgspec.json.encode(bundle), indent=2) + b"\n")
    missing = [record.seq for record in bundle.records if record.seq not in bundle.proofs]
    rollout = bundle.evidence.rollout
    note(
        operator,
        f"Rollout {rollout.number} of {bundle.evidence.key}: {len(rollout.steps)} decisions,"
        f" {len(bundle.records)} records, {len(bundle.proofs)} proofs."
        + (f" Not provable yet: {', '.join(map(str, missing))}." if missing else ""),
    )


def _bundle(operator: Operator, client: Client, told: EvidenceInfo) -> Bundle:
    records: list[RecordInfo] = []
    proofs: dict[int, str] = {}
    with scanning(operator) as tell:
        for done, seq in enumerate(told.records, start=1):
            records += client.log(after=seq - 1, before=seq + 1, limit=1)
            tell(done, len(told.records), len(records))
        vkey = _vkey(client)
        if vkey is not None:
            proofs = dict(_proofs(client, parse_vkey(vkey), records))
    return Bundle(vkey=vkey or "", evidence=told, records=records, proofs=proofs)


def _vkey(client: Client) -> str | None:
    """The log's verifier key, where the node serves its log."""
    try:
        return client.log_vkey()
    except NotFound:
        return None


def _proofs(
    client: Client, log: VerifierKey, records: list[RecordInfo]
) -> Iterator[tuple[int, str]]:
    """Proofs, each checked against its record; for what was just done it waits a moment, once."""
    until_s = time.monotonic() + limits.PROOF_WAIT_S
    for record in records:
        data = _proof(client, record.seq, until_s)
        if data is None:
            continue
        proof = parse_proof(data)
        verify_proof(proof, bytes.fromhex(record.entry), policy_of(log))
        if proof.index != record.seq:
            raise ProofInvalid(f"expected a proof of record {record.seq}, met one of {proof.index}")
        yield record.seq, data.decode()


def _proof(client: Client, seq: int, until_s: float) -> bytes | None:
    while True:
        try:
            return client.log_proof(seq)
        except NotFound:
            if time.monotonic() > until_s:
                return None
        time.sleep(_PAUSE_S)
