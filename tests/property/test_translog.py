"""The log under any history: appends in any runs, restarts, partial tiles; and any bytes at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.errors import KeysteadError, ProofInvalid
from keystead.translog.heads import Checkpoint, parse_checkpoint
from keystead.translog.notes import (
    VerifierKey,
    encode_note,
    encode_signature,
    parse_note,
    parse_signatures,
    parse_vkey,
)
from keystead.translog.policy import parse_policy
from keystead.translog.proofs import Evidence, LogProof, evidence_of, parse_proof
from keystead.translog.tiles import (
    Bundle,
    Tile,
    TileEdge,
    TileNodes,
    bundles_between,
    decode_bundle,
    edge_tiles,
    encode_bundle,
    parse_path,
    tiles_between,
)
from keystead.translog.tree import (
    Frontier,
    consistency_proof,
    frontier_of,
    inclusion_proof,
    verify_consistency,
    verify_inclusion,
)
from unit.translog.logs import LOG, W1, W2, Naive, TileStore, head, leaves_of, signed

MOST = 2_000
LEAVES = leaves_of(MOST)
NAIVE = Naive(LEAVES)
Parsed = TypeVar("Parsed")
sizes = st.integers(0, MOST)
histories = st.lists(sizes, min_size=1, max_size=8).map(sorted)


@given(histories)
def test_tiles_left_by_any_history_serve_every_size_of_it(history: list[int]) -> None:
    store = TileStore()
    frontier = Frontier()
    done = 0
    for size in history:
        store.append(LEAVES[done:size])
        frontier = frontier.extended(LEAVES[done:size])
        done = size
    for old in history:
        nodes = TileNodes(store.fetch, old)
        assert frontier_of(old, nodes.read).root() == NAIVE.root(0, old)
    nodes = TileNodes(store.fetch, done)
    assert frontier_of(done, nodes.read) == frontier
    for old in history:
        proof = consistency_proof(old, done, nodes.read)
        assert list(proof) == NAIVE.proof(old, done)
        verify_consistency(old, NAIVE.root(0, old), done, frontier.root(), proof)
    for index in {size - 1 for size in history if size}:
        path = inclusion_proof(index, done, nodes.read)
        assert list(path) == NAIVE.path(index, 0, done)
        verify_inclusion(LEAVES[index], index, done, path, frontier.root())


@given(histories)
def test_a_restart_goes_on_from_the_tiles_alone(history: list[int]) -> None:
    """Each run reads its edge back from the files, as a process that was killed does."""
    straight, restarted = TileStore(), TileStore()
    straight.append(LEAVES[: history[-1]])
    done = 0
    for size in history:
        parts = {tile.level: restarted.fetch(tile) for tile in edge_tiles(done)}
        levels = range(max(parts, default=-1) + 1)
        restarted.edge = TileEdge(done, tuple(parts.get(level, b"") for level in levels))
        restarted.append(LEAVES[done:size])
        done = size
    assert restarted.edge == straight.edge
    assert restarted.files.items() >= straight.files.items()


@given(sizes, sizes)
def test_growing_writes_what_a_fresh_log_of_that_size_has(one: int, two: int) -> None:
    old, new = sorted((one, two))
    grown = set(tiles_between(0, old)) | set(tiles_between(old, new))
    fresh = set(tiles_between(0, new))
    assert fresh <= grown
    assert all(tile.width < 256 for tile in grown - fresh)
    names = {(bundle.index, bundle.width) for bundle in bundles_between(old, new)}
    assert names == {(t.index, t.width) for t in tiles_between(old, new) if t.level == 0}


@given(st.integers(0, 63), st.integers(0, 2**55 - 1), st.integers(1, 256))
def test_every_path_reads_back(level: int, index: int, width: int) -> None:
    for named in (Tile(level, index, width), Bundle(index, width)):
        assert parse_path(named.path) == named


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=256))
def test_every_bundle_reads_back(entries: list[bytes]) -> None:
    assert decode_bundle(encode_bundle(entries), len(entries)) == entries


@given(st.data())
def test_a_proof_holds_for_no_other_leaf(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, MOST))
    index = data.draw(st.integers(0, size - 1))
    other = data.draw(st.integers(0, size - 1).filter(lambda at: at != index))
    path = NAIVE.path(index, 0, size)
    for leaf, place in ((LEAVES[other], index), (LEAVES[index], other)):
        with pytest.raises(ProofInvalid):
            verify_inclusion(leaf, place, size, path, NAIVE.root(0, size))


# --- any bytes at all ----------------------------------------------------------------------------

NOTE = encode_note(signed(head(7, "x")))
PROOF = b"c2sp.org/tlog-proof@v1\nextra AAAA\nindex 3\n" + b"A" * 43 + b"=\n\n" + NOTE
POLICY = (
    f"log {LOG.encode()} u\nwitness a {W1.encode()}\nwitness b {W2.encode()}\n"
    "group g any a b\nquorum g\n"
).encode()


@st.composite
def near(draw: st.DrawFn, right: bytes) -> bytes:
    """Any bytes, or a right file with a piece replaced, dropped or put in."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=400))
    low = draw(st.integers(0, len(right)))
    high = draw(st.integers(low, min(low + 8, len(right))))
    piece = draw(st.binary(max_size=8) | st.sampled_from([b"\n", b"\n\n", b" ", b"0", b"="]))
    return right[:low] + piece + right[high:]


def check_one_form(
    parse: Callable[[bytes], Parsed], encode: Callable[[Parsed], bytes], data: bytes
) -> None:
    """Only Keystead's errors come out; and what is taken has no second form."""
    try:
        value = parse(data)
    except KeysteadError:
        return
    assert encode(value) == data


def check_one_text(
    parse: Callable[[str], Parsed], encode: Callable[[Parsed], str], data: bytes
) -> None:
    def as_text(raw: bytes) -> Parsed:
        return parse(raw.decode(errors="surrogateescape"))

    check_one_form(as_text, lambda value: encode(value).encode(), data)


@given(near(NOTE))
def test_any_bytes_as_a_note(data: bytes) -> None:
    check_one_form(parse_note, encode_note, data)


@given(near(encode_signature(signed(head()).signatures[0]).encode()))
def test_any_bytes_as_signature_lines(data: bytes) -> None:
    check_one_text(parse_signatures, lambda lines: "".join(map(encode_signature, lines)), data)


@given(near(head(7, "x").encode().encode()))
def test_any_bytes_as_a_checkpoint(data: bytes) -> None:
    check_one_text(parse_checkpoint, Checkpoint.encode, data)


@given(near(LOG.encode().encode()))
def test_any_bytes_as_a_key(data: bytes) -> None:
    check_one_text(parse_vkey, VerifierKey.encode, data)


@given(near(PROOF))
def test_any_bytes_as_a_proof(data: bytes) -> None:
    check_one_form(parse_proof, LogProof.encode, data)


@given(near(b'{"type":"keystead-evidence/v1","entry":"' + b"A" * 43 + b'="}'))
def test_any_bytes_as_evidence(data: bytes) -> None:
    right = parse_proof(PROOF)

    def parse(extra: bytes) -> Evidence:
        return evidence_of(LogProof(right.index, right.hashes, right.checkpoint, extra))

    check_one_form(parse, Evidence.encode, data)


@given(near(POLICY))
def test_any_bytes_as_a_policy(data: bytes) -> None:
    """Of a policy there are many forms; what was taken encodes to one that reads back."""
    try:
        policy = parse_policy(data)
    except KeysteadError:
        return
    assert parse_policy(policy.encode()) == policy


@given(near(b"tile/0/x001/234.p/56"))
def test_any_bytes_as_a_path(data: bytes) -> None:
    check_one_text(parse_path, lambda named: named.path, data)


@given(near(b"\0\3abc\0\0\0\1d"), st.integers(-1, 300))
def test_any_bytes_as_a_bundle(data: bytes, width: int) -> None:
    check_one_form(lambda raw: decode_bundle(raw, width), encode_bundle, data)


numbers = st.integers(-2, 20) | st.integers(2**62, 2**65)


@given(st.binary(max_size=64), st.lists(st.binary(max_size=40), max_size=4), numbers, numbers)
def test_any_bytes_as_merkle_proofs(root: bytes, proof: list[bytes], one: int, two: int) -> None:
    """Nothing but the two empty statements holds: a tree of one leaf, and a tree of itself."""
    if (proof, one, two, len(root)) != ([], 0, 1, 32):
        with pytest.raises(ProofInvalid):
            verify_inclusion(root, one, two, proof, root)
    if proof or not 0 < one == two:
        with pytest.raises(ProofInvalid):
            verify_consistency(one, root, two, root, proof)
