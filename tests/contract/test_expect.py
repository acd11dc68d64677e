"""The contract suites' own expectations can fail, and their clocks and draws do what they say."""

import pytest

from keystead.testing.clocks import ManualClock, SeededRandom
from keystead.testing.expect import check_equal, check_raises, check_that


def test_a_wrong_fact_fails() -> None:
    check_that(holds=True, what="a fact")
    with pytest.raises(AssertionError, match="expected: a fact"):
        check_that(holds=False, what="a fact")


def test_a_difference_fails() -> None:
    check_equal(1, 1, "number")
    with pytest.raises(AssertionError, match="number: expected 2, met 1"):
        check_equal(1, 2, "number")


def _raise(error: Exception) -> None:
    raise error


def test_a_missing_or_other_error_fails() -> None:
    with check_raises(LookupError, "a lookup"):
        _raise(KeyError())
    with pytest.raises(AssertionError, match="met no error"), check_raises(KeyError, "a lookup"):
        pass
    with pytest.raises(ValueError, match="another"), check_raises(KeyError, "a lookup"):
        _raise(ValueError("another"))


def test_time_passes_on_both_clocks_and_jumps_on_one() -> None:
    clock = ManualClock(now_ms=1_000, boottime_ms=50)
    clock.advance(5)
    clock.jump(-500)
    assert (clock.now_ms(), clock.boottime_ms()) == (505, 55)
    with pytest.raises(ValueError, match="forwards"):
        clock.advance(-1)


def test_draws_repeat_by_seed_only() -> None:
    draws = [SeededRandom(seed) for seed in (1, 1, 2)]
    first = [random.bytes(16) for random in draws]
    assert first[0] == first[1] != first[2]
    assert draws[0].bytes(16) != first[0]
    assert len(draws[0].bytes(0)) == 0
