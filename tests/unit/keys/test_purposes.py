"""The table of purposes (I1): operations, algorithms, and which of them go together."""

import pytest

from keystead.errors import AlgorithmForbidden, MalformedRequest, PurposeMismatch
from keystead.keys.algorithms import ALGORITHMS, Kind
from keystead.keys.operations import FACTS, FRAMINGS, facts_type
from keystead.keys.purposes import (
    PURPOSES,
    SIGNALS,
    Purpose,
    check_operation,
    default_algorithm,
    effective_algorithm,
    misuse_pairs,
)

SIGNING = {"sign", "sign_digest", "append"}


def test_the_purposes_are_those_of_the_design() -> None:
    names = ",".join(PURPOSES)
    assert names == "tls,ca,jwt,firmware,ledger,vpn,ssh,ssh_ca,data,ticket,audit"
    assert set(PURPOSES) == set(Purpose)


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_row_is_consistent(purpose: Purpose) -> None:
    row = PURPOSES[purpose]
    assert default_algorithm(purpose) == row.algorithms[0]
    assert len(set(row.algorithms)) == len(row.algorithms)
    assert set(row.by_operation) <= set(row.operations)
    signs = bool(SIGNING & set(row.operations))
    for name in row.algorithms:
        assert (ALGORITHMS[name].kind is Kind.SIGNATURE) == signs
    for allowed in row.by_operation.values():
        assert set(allowed) <= set(row.algorithms)
    assert row.prehashed_allowed == ("sign_digest" in row.operations)


@pytest.mark.parametrize("purpose", PURPOSES)
def test_an_offered_purpose_can_do_each_of_its_operations(purpose: Purpose) -> None:
    row = PURPOSES[purpose]
    for operation in row.operations:
        if row.offered:
            assert facts_type(purpose, operation) is FACTS[purpose, operation]
        else:
            with pytest.raises(MalformedRequest, match=f"no operation {purpose}"):
                facts_type(purpose, operation)
        assert ((purpose, operation) in FRAMINGS) == (row.offered and operation in SIGNING)


def test_no_operation_stands_in_the_tables_without_its_purpose() -> None:
    own = {(str(p), name) for p, row in PURPOSES.items() for name in (*row.operations, *SIGNALS)}
    assert set(FACTS) <= own


def test_an_operation_of_another_purpose_is_a_mismatch_even_if_the_key_has_its_namesake() -> None:
    check_operation(Purpose.JWT, "jwt", "sign")
    with pytest.raises(PurposeMismatch, match="the key is for jwt"):
        check_operation(Purpose.JWT, "tls", "sign")
    with pytest.raises(PurposeMismatch):
        check_operation(Purpose.JWT, "no such purpose " * 100, "sign")


@pytest.mark.parametrize("operation", ["", "Sign", "append", "export", "x" * 1000])
def test_an_operation_that_the_purpose_lacks_is_malformed(operation: str) -> None:
    with pytest.raises(MalformedRequest) as refused:
        check_operation(Purpose.JWT, "jwt", operation)
    assert refused.value.hint == "It has: sign"
    assert len(refused.value.message) < 100


def test_a_data_key_works_with_the_subkeys_of_its_algorithm() -> None:
    assert effective_algorithm(Purpose.JWT, "sign", "ed25519") == "ed25519"
    assert effective_algorithm(Purpose.DATA, "wrap", "aes-256-gcm-siv") == "aes-256-gcm-siv"
    assert effective_algorithm(Purpose.DATA, "mac", "aes-256-gcm-siv") == "hmac-sha256"
    assert effective_algorithm(Purpose.DATA, "derive", "aes-256-gcm-siv") == "hkdf-sha256"
    with pytest.raises(AlgorithmForbidden, match="hmac-sha256 key does not wrap"):
        effective_algorithm(Purpose.DATA, "wrap", "hmac-sha256")


def test_the_matrix_off_its_diagonal_is_whole() -> None:
    pairs = list(misuse_pairs())
    operations = {purpose: len(row.operations) for purpose, row in PURPOSES.items()}
    everything = sum(operations.values())
    assert (
        len(set(pairs))
        == len(pairs)
        == sum(
            len(row.algorithms) * (everything - operations[purpose])
            for purpose, row in PURPOSES.items()
        )
    )
    assert all(own is not other for own, _, other, _ in pairs)
