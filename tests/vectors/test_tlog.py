"""The log by other people's hands: RFC 6962's and C2SP's examples, PyNaCl, and tlog-scales.

tlog-scales is a reader and writer of tlog-tiles logs that shares nothing with this one.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import nacl.exceptions
import pytest
from nacl.signing import VerifyKey
from tlog_scales.backend import LocalBackend
from tlog_scales.reader import TilesReader
from tlog_scales.signing import (
    CheckpointSigner,
    MLDSA44CosignatureSigner,
    PlainEd25519Signer,
    Vkey,
)
from tlog_scales.tlog import Checkpoint as ForeignCheckpoint
from tlog_scales.tlog import (
    ConsistencyProof,
    ConsistencyProofInvalid,
    InclusionProof,
    InclusionProofInvalid,
)
from tlog_scales.writer import TilesWriter

from keystead.errors import SignatureInvalid
from keystead.translog.checkpoints import Checkpoint, check_log_signature, open_checkpoint
from keystead.translog.cosignatures import cosign, verify_cosignature
from keystead.translog.entries import leaf_hash
from keystead.translog.notes import Note, encode_note, parse_note, parse_vkey, verify_note
from keystead.translog.tiles import (
    Bundle,
    Tile,
    TileNodes,
    bundles_between,
    encode_bundle,
    tiles_between,
)
from keystead.translog.tree import (
    Frontier,
    consistency_proof,
    inclusion_proof,
    root_of,
    verify_inclusion,
)
from unit.translog.logs import LOG, ORIGIN, W1, W1_SIGN, W2, W2_SIGN, TileStore, signed

TIME_S = 1_679_315_147

# --- RFC 6962 -------------------------------------------------------------------------------------

CT_LEAVES = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")
CT_LAST = "606162636465666768696a6b6c6d6e6f"
CT_ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
"""Of the first one, two, ... leaves: the reference tree of Certificate Transparency."""


def test_the_reference_tree_of_certificate_transparency() -> None:
    frontier = Frontier()
    for leaf, root in zip((*CT_LEAVES, CT_LAST), CT_ROOTS, strict=True):
        frontier = frontier.extended([leaf_hash(bytes.fromhex(leaf))])
        assert frontier.root().hex() == root


# --- C2SP's examples ------------------------------------------------------------------------------

NOTE_VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
NOTE = (
    "This is an example message.\n\n\u2014 example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppz"
    "i2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
CHECKPOINT = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "\u2014 example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zh"
    "cyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "\u2014 witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJs"
    "X3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)


def test_the_example_of_signed_note() -> None:
    key = parse_vkey(NOTE_VKEY)
    assert key.encode() == NOTE_VKEY
    note = parse_note(NOTE)
    assert verify_note(note, [key]) == (key,)
    assert encode_note(note).decode() == NOTE
    with pytest.raises(SignatureInvalid):
        verify_note(parse_note(NOTE.replace("message", "massage")), [key])


def test_the_example_of_tlog_cosignature_parses() -> None:
    """Its keys are not published with it."""
    note = parse_note(CHECKPOINT)
    log, witness = note.signatures
    assert (log.key_id.hex(), len(log.data)) == ("033de0ae", 64)
    assert int.from_bytes(witness.data[:8], "big") == TIME_S
    assert len(witness.data) == 72
    assert encode_note(note).decode() == CHECKPOINT


# --- our log, their tools -------------------------------------------------------------------------

SIZES = (1, 200, 256, 300, 777)
ENTRIES = [hashlib.sha256(b"entry %d" % at).digest() for at in range(SIZES[-1])]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]


def checkpoint_of(size: int) -> Checkpoint:
    return Checkpoint(ORIGIN, size, Frontier().extended(LEAVES[:size]).root())


def cosigned(size: int) -> Note:
    note = signed(checkpoint_of(size))
    ours = (cosign(note.text, W1, TIME_S, W1_SIGN), cosign(note.text, W2, TIME_S, W2_SIGN))
    return Note(note.text, (*note.signatures, *ours))


def test_pynacl_alone_checks_a_checkpoint() -> None:
    """From the published vkeys, by signed-note's and tlog-cosignature's text, without Keystead."""
    data = encode_note(cosigned(777)).decode()
    text, _, lines = data.rpartition("\n\n")
    text += "\n"
    checked = 0
    for vkey in (LOG.encode(), W1.encode()):
        name, key_id, material = vkey.split("+", 2)
        kind, public = base64.b64decode(material)[0], base64.b64decode(material)[1:]
        for line in lines.splitlines():
            dash, signer, encoded = line.split(" ")
            raw = base64.b64decode(encoded)
            if (dash, signer, raw[:4].hex()) != ("\u2014", name, key_id):
                continue
            message, signature = text.encode(), raw[4:]
            if kind == 4:
                time_s = int.from_bytes(raw[4:12], "big")
                message = f"cosignature/v1\ntime {time_s}\n{text}".encode()
                signature = raw[12:]
            VerifyKey(public).verify(message, signature)
            with pytest.raises(nacl.exceptions.BadSignatureError):
                VerifyKey(public).verify(message + b"\n", signature)
            checked += 1
    assert checked == 2


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log as it stands after five checkpoints, in files."""
    root = tmp_path_factory.mktemp("log")
    store, done = TileStore(), 0
    for size in SIZES:
        store.append(LEAVES[done:size])
        for bundle in bundles_between(done, size):
            first = bundle.index * 256
            store.files[bundle.path] = encode_bundle(ENTRIES[first : first + bundle.width])
        done = size
    store.files["checkpoint"] = encode_note(cosigned(done))
    for name, data in store.files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def test_a_foreign_reader_follows_our_log(ours: Path) -> None:
    reader = TilesReader(LocalBackend(ours))
    checkpoint = reader.get_checkpoint()
    assert (checkpoint.origin, checkpoint.size) == (ORIGIN, 777)
    for key in (LOG, W1, W2):
        checkpoint.verify(Vkey.from_string(key.encode()))
    assert reader.calculate_root_hash() == checkpoint.root_hash
    assert [reader.get_entry(index) for index in range(777)] == ENTRIES


def test_a_foreign_reader_makes_the_proofs_that_we_make(ours: Path) -> None:
    nodes = TileNodes(lambda tile: (ours / tile.path).read_bytes(), 777)
    reader = TilesReader(LocalBackend(ours))
    reader.set_size(777)
    for index in range(0, 777, 31):
        theirs = reader.get_inclusion_proof(index, 777).node_hashes
        assert tuple(theirs) == inclusion_proof(index, 777, nodes.read)
    for old in SIZES:
        theirs = reader.get_consistency_proof(old, 777).node_hashes
        assert tuple(theirs) == consistency_proof(old, 777, nodes.read)


@pytest.mark.parametrize("size", SIZES)
def test_a_foreign_verifier_accepts_our_proofs_and_no_others(ours: Path, size: int) -> None:
    nodes = TileNodes(lambda tile: (ours / tile.path).read_bytes(), size)
    root = checkpoint_of(size).root
    for index in {0, size // 3, size - 1}:
        proof = InclusionProof(index, size, list(inclusion_proof(index, size, nodes.read)))
        proof.check(LEAVES[index], root)
        with pytest.raises(InclusionProofInvalid):
            proof.check(leaf_hash(b"other"), root)
    for old in [other for other in SIZES if other < size]:
        grown = ConsistencyProof(old, size, list(consistency_proof(old, size, nodes.read)))
        grown.check(checkpoint_of(old).root, root)
        with pytest.raises(ConsistencyProofInvalid):
            grown.check(checkpoint_of(old + 1).root, root)


# --- their log, our tools -------------------------------------------------------------------------


def test_we_read_and_verify_a_foreign_log(tmp_path: Path, ours: Path) -> None:
    root = tmp_path / "theirs"
    writer = TilesWriter.create(root, ORIGIN)
    signers: list[CheckpointSigner] = [
        PlainEd25519Signer(ORIGIN, b"\7" * 32),
        MLDSA44CosignatureSigner(ORIGIN, b"\7" * 32),
    ]
    done = 0
    for size in SIZES:
        for entry in ENTRIES[done:size]:
            writer.add_leaf(entry)
        writer.commit(signers)
        done = size
    data = (root / "checkpoint").read_bytes()
    first, second = (
        parse_vkey(signer.vkey.serialize())  # type: ignore[no-untyped-call]  # theirs has no types
        for signer in signers
    )
    checkpoint, note = open_checkpoint(data, first)
    assert check_log_signature(note, second) == checkpoint == checkpoint_of(777)
    assert verify_cosignature(note, second) > TIME_S
    nodes = TileNodes(lambda tile: (root / tile.path).read_bytes(), 777)
    assert root_of(777, nodes.read) == checkpoint.root
    verify_inclusion(LEAVES[5], 5, 777, inclusion_proof(5, 777, nodes.read), checkpoint.root)
    named: list[Tile | Bundle] = [*tiles_between(0, 777), *bundles_between(0, 777)]
    for item in named:
        assert (root / item.path).read_bytes() == (ours / item.path).read_bytes()


def test_a_foreign_parser_reads_our_checkpoint_back() -> None:
    data = encode_note(cosigned(300)).decode()
    assert ForeignCheckpoint.from_text(data).serialize() == data
