"""The table of algorithms: every row is one that purposes, custody and verifiers can rely on."""

import pytest

from keystead.errors import MalformedRequest
from keystead.keys.algorithms import ALGORITHMS, Kind, algorithm_named
from keystead.keys.purposes import PURPOSES


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_name_gives_its_row(name: str) -> None:
    row = algorithm_named(name)
    assert row.name == name
    assert row.components
    assert all(ALGORITHMS[part].components == (part,) for part in row.components)


@pytest.mark.parametrize("name", ["", "ed25519 ", "ED25519", "none", "x" * 10_000])
def test_an_unknown_name_is_refused_and_cut_short(name: str) -> None:
    with pytest.raises(MalformedRequest) as refused:
        algorithm_named(name)
    assert "ed25519" in refused.value.hint
    assert len(refused.value.message) < 100


def test_only_signatures_have_names_in_jose_and_tls() -> None:
    for row in ALGORITHMS.values():
        if row.kind is not Kind.SIGNATURE or len(row.components) > 1:
            assert (row.jose, row.tls_scheme) == (None, None), row.name


def test_a_dual_algorithm_signs_with_two_different_components() -> None:
    duals = [row for row in ALGORITHMS.values() if len(row.components) > 1]
    assert [len(set(row.components)) for row in duals] == [2]


def test_every_algorithm_serves_a_purpose() -> None:
    used = {name for row in PURPOSES.values() for name in row.algorithms}
    assert used == set(ALGORITHMS)
