"""Token buckets of rate caveats: a burst, an even refill, all links of a chain or none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead import limits
from keystead.errors import LimitExceeded
from keystead.keys.caveats import Rate
from keystead.vault.buckets import RateBuckets


def taken(buckets: RateBuckets, now_ms: int, *rates: tuple[str, Rate]) -> bool:
    try:
        buckets.take(rates, now_ms)
    except LimitExceeded:
        return False
    return True


def test_a_burst_is_the_count() -> None:
    buckets, rate = RateBuckets(), ("a", Rate(count=3, per_s=10))
    assert [taken(buckets, 0, rate) for _ in range(5)] == [True] * 3 + [False] * 2


def test_a_refusal_says_when() -> None:
    buckets, rate = RateBuckets(), ("a", Rate(count=2, per_s=10))
    for _ in range(2):
        buckets.take((rate,), 1_000)
    with pytest.raises(LimitExceeded, match="2 uses in 10 s") as caught:
        buckets.take((rate,), 2_000)
    assert caught.value.retry_after_s == 4.0
    assert not taken(buckets, 5_999, rate)
    assert taken(buckets, 6_000, rate)


def test_it_refills_evenly_and_no_further_than_full() -> None:
    buckets, rate = RateBuckets(), ("a", Rate(count=4, per_s=4))
    assert [taken(buckets, 0, rate) for _ in range(5)] == [True] * 4 + [False]
    assert [taken(buckets, 2_000, rate) for _ in range(3)] == [True, True, False]
    assert [taken(buckets, 10**9, rate) for _ in range(5)] == [True] * 4 + [False]


def test_refused_takes_cost_nothing() -> None:
    buckets, rate = RateBuckets(), ("a", Rate(count=1, per_s=1))
    assert taken(buckets, 0, rate)
    assert not any(taken(buckets, at, rate) for at in range(1, 1_000))
    assert taken(buckets, 1_000, rate)


def test_all_links_or_none() -> None:
    """A child's use spends its parent's rate; where the child may not, the parent's stays."""
    buckets = RateBuckets()
    parent, child = ("parent", Rate(count=3, per_s=100)), ("child", Rate(count=1, per_s=100))
    assert taken(buckets, 0, parent, child)
    assert not taken(buckets, 0, parent, child)
    assert [taken(buckets, 0, parent) for _ in range(3)] == [True, True, False]


def test_children_spend_one_parent() -> None:
    buckets, parent = RateBuckets(), ("parent", Rate(count=5, per_s=100))
    children = [(f"child{number}", Rate(count=5, per_s=100)) for number in range(10)]
    assert sum(taken(buckets, 0, parent, child) for child in children) == 5


def test_links_are_apart() -> None:
    buckets = RateBuckets()
    assert taken(buckets, 0, ("a", Rate(count=1, per_s=9)))
    assert taken(buckets, 0, ("b", Rate(count=1, per_s=9)))
    assert not taken(buckets, 0, ("a", Rate(count=1, per_s=9)))


def test_no_rate_is_no_limit() -> None:
    assert all(taken(RateBuckets(), 0) for _ in range(3))


def test_a_clock_that_goes_back_gives_nothing() -> None:
    buckets, rate = RateBuckets(), ("a", Rate(count=1, per_s=1))
    assert taken(buckets, 10_000, rate)
    assert not any(taken(buckets, at, rate) for at in (9_000, 0, -5_000, 9_999))


def test_buckets_are_bounded_and_the_least_used_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RATE_BUCKETS_MAX", 2)
    buckets, rate = RateBuckets(), Rate(count=1, per_s=1_000)
    assert taken(buckets, 0, ("a", rate))
    assert taken(buckets, 1, ("b", rate))
    assert not taken(buckets, 2, ("b", rate))
    assert taken(buckets, 3, ("c", rate))  # "a" goes
    assert not taken(buckets, 4, ("b", rate))
    assert not taken(buckets, 4, ("c", rate))
    assert taken(buckets, 5, ("a", rate))


def test_a_use_keeps_its_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RATE_BUCKETS_MAX", 2)
    buckets, rate = RateBuckets(), Rate(count=2, per_s=1_000)
    for link in ("a", "b", "a", "c"):  # "b" goes
        assert taken(buckets, 0, (link, rate))
    assert not taken(buckets, 0, ("a", rate))
    assert [taken(buckets, 0, ("b", rate)) for _ in range(3)] == [True, True, False]


@given(
    count=st.integers(1, 50),
    per_s=st.integers(1, 60),
    pauses=st.lists(st.integers(0, 5_000), max_size=200),
)
def test_never_more_than_the_rate(count: int, per_s: int, pauses: list[int]) -> None:
    """In any span there are at most the burst and what refilled within it."""
    buckets, now, done = RateBuckets(), 0, 0
    for pause in pauses:
        now += pause
        done += taken(buckets, now, ("a", Rate(count=count, per_s=per_s)))
    assert done <= count + now * count / (per_s * 1000) + 1e-6


def test_a_token_given_back_can_be_taken_again() -> None:
    buckets, rate = RateBuckets(), ("a", Rate(count=1, per_s=3600))
    assert taken(buckets, 0, rate)
    assert not taken(buckets, 0, rate)
    buckets.give_back("a")
    assert [taken(buckets, 0, rate) for _ in range(2)] == [True, False]
