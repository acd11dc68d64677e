"""I1 and what a key's algorithm cannot do: the whole matrix off its diagonal, refused pair by pair.

The handle is the widest there is and the versions are active: only the rule itself refuses.
"""

import pytest

from keystead.errors import AlgorithmForbidden, PurposeMismatch
from keystead.keys.purposes import PURPOSES, Purpose, misuse_pairs
from keystead.keys.use import Asked, Bearer, decide_use
from unit.keys.sample import NOW_MS, grant_of, key_of

MISUSES = list(misuse_pairs())
UNABLE = [
    (purpose, algorithm, operation)
    for purpose, row in PURPOSES.items()
    for operation, able in row.by_operation.items()
    for algorithm in row.algorithms
    if algorithm not in able
]
EVERYBODY = Bearer(certificate_digest=bytes(32), ed25519=bytes(32), unix_peer=b"web:33")


def test_the_matrix_does_not_shrink() -> None:
    # by the table of the design: for each purpose, its algorithms times the operations of others
    assert len(MISUSES) == len(set(MISUSES)) == 548
    assert len(UNABLE) == 8
    assert {own for own, *_ in MISUSES} == {other for *_, other, _ in MISUSES} == set(Purpose)


@pytest.mark.parametrize("prehashed", [False, True], ids=["", "prehashed"])
@pytest.mark.parametrize(("own", "algorithm", "other", "operation"), MISUSES)
def test_a_key_does_no_work_of_another_purpose(
    own: Purpose, algorithm: str, other: Purpose, operation: str, *, prehashed: bool
) -> None:
    key = key_of(own, algorithm, prehashed=prehashed)
    asked = Asked(purpose=other, operation=operation, context="web")
    with pytest.raises(PurposeMismatch, match=f"the key is for {own}, .* of '{other}'"):
        decide_use(
            grant_of(key),
            key,
            asked,
            EVERYBODY,
            now_ms=NOW_MS,
            revoked=frozenset(),
            stopped=frozenset(),
        )


@pytest.mark.parametrize(("purpose", "algorithm", "operation"), UNABLE)
def test_a_key_does_nothing_that_its_algorithm_is_not_for(
    purpose: Purpose, algorithm: str, operation: str
) -> None:
    key = key_of(purpose, algorithm)
    asked = Asked(purpose=purpose, operation=operation, context="web")
    with pytest.raises(AlgorithmForbidden, match=f"a {algorithm} key does not {operation}"):
        decide_use(
            grant_of(key),
            key,
            asked,
            EVERYBODY,
            now_ms=NOW_MS,
            revoked=frozenset(),
            stopped=frozenset(),
        )
