"""``keystead key evidence``: one document, whose proofs hold without the node."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from keystead import limits
from keystead.cli.rollout_evidence import FORMAT
from keystead.translog.entries import entry_of, leaf_hash
from keystead.translog.heads import Checkpoint
from keystead.translog.notes import Note, encode_note, sign_note
from keystead.translog.proofs import Evidence, LogProof
from keystead.translog.tree import inclusion_proof
from unit.cli.conftest import Run
from unit.cli.node import RECORD, FakeNode, Seen
from unit.cli.rolling import REPORTED, Rolling, as_json
from unit.translog.logs import LOG, LOG_SIGN, ORIGIN, Naive

SALT = bytes(range(16))
BODIES = [b'{"seq":%d,"op":"key.rotate"}' % at for at in range(7)]
ENTRIES = [entry_of(SALT, body) for body in BODIES]
TREE = Naive([leaf_hash(entry) for entry in ENTRIES])
TEXT = Checkpoint(ORIGIN, 7, TREE.root(0, 7)).encode()
NOTE = encode_note(Note(TEXT, (sign_note(TEXT, LOG, LOG_SIGN),))).decode()


def proof_of(index: int) -> bytes:
    extra = Evidence(ENTRIES[index]).encode()
    return LogProof(index, inclusion_proof(index, 7, TREE.read), NOTE, extra).encode()


@pytest.fixture
def rolling(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> Rolling:
    """A rollout that went back, of records 2, 4 and 6, on a node that serves a real log."""
    monkeypatch.setattr(limits, "PROOF_WAIT_S", 0.0)
    made = Rolling()
    made.begin()
    made.signals = REPORTED
    made.pass_time(5_000)
    report = {"principal": "gateway", "seq": 5, "at_ms": 1, "version": 2, "problem": "signature"}
    evidence = {"key": "shop", "purpose": "jwt", "rollout": as_json(made.rotation.rollout)}
    evidence |= {"reports": [report], "acknowledged": [], "revisions": [], "records": [2, 4, 6]}
    node.on("GET /v1/keys/shop/evidence", evidence)
    node.on("GET /log/vkey", LOG.encode().encode())
    for seq in (2, 4, 6):
        node.on(f"GET /log/proof/{seq}", proof_of(seq))
    table = node.answer

    def answer(seen: Seen) -> tuple[int, bytes]:
        if not seen.path.startswith("/v1/log?"):
            return table(seen)
        seq = int(seen.path.partition("after=")[2].partition("&")[0]) + 1
        record = RECORD | {"seq": seq, "entry": ENTRIES[seq].hex()}
        page = {"records": [record], "next": 0, "end": True, "top": 6}
        return 200, json.dumps(page).encode()

    node.answer = answer  # type: ignore[method-assign]  # the log, and then its table
    return made


def test_a_bundle_holds_decisions_records_and_proofs(
    run: Run, node: FakeNode, rolling: Rolling
) -> None:
    ran = run("key", "evidence", "shop", "--number", "1", "--out", "rollout.json")
    assert (ran.status, ran.out) == (0, "")
    assert "3 decisions, 3 records, 3 proofs" in ran.err
    assert stat.S_IMODE(Path("rollout.json").stat().st_mode) == 0o600
    bundle: dict[str, Any] = json.loads(Path("rollout.json").read_text())
    assert bundle["format"] == FORMAT
    assert bundle["evidence"]["rollout"] == as_json(rolling.rotation.rollout)
    assert bundle["evidence"]["reports"][0]["seq"] == 5
    assert [record["seq"] for record in bundle["records"]] == [2, 4, 6]
    assert sorted(bundle["proofs"]) == ["2", "4", "6"]
    assert node.seen[0].path == "/v1/keys/shop/evidence?number=1"
    Path("2.proof").write_text(bundle["proofs"]["2"])
    assert run("log", "verify", "2.proof", "--key", bundle["vkey"]).status == 0


@pytest.mark.usefixtures("rolling")
def test_a_record_that_is_not_published_yet_is_named(run: Run, node: FakeNode) -> None:
    del node.table["GET /log/proof/6"]
    ran = run("key", "evidence", "shop")
    assert ran.status == 0
    assert "Not provable yet: 6" in ran.err
    assert sorted(json.loads(ran.out)["proofs"]) == ["2", "4"]


@pytest.mark.usefixtures("rolling")
def test_a_node_that_serves_no_log_gives_no_proofs(run: Run, node: FakeNode) -> None:
    del node.table["GET /log/vkey"]
    told = json.loads(run("key", "evidence", "shop", "--json").out)
    assert (told["vkey"], told["proofs"]) == ("", {})
    assert len(told["records"]) == 3


@pytest.mark.usefixtures("rolling")
def test_a_proof_of_another_record_is_refused(run: Run, node: FakeNode) -> None:
    node.on("GET /log/proof/4", proof_of(3))
    ran = run("key", "evidence", "shop", "--out", "rollout.json")
    assert ran.status == 1
    assert not Path("rollout.json").exists()
