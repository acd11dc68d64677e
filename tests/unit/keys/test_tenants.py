"""Budgets of tenants: what is set, and which way a change goes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead import limits
from keystead.errors import MalformedRequest
from keystead.keys.caveats import Rate
from keystead.keys.commands import LimitTenant
from keystead.keys.tenants import DEFAULT_RATE, budget_of, limited, weakened

ASKED = LimitTenant(tenant="shop", count=10, per_s=2, reason="test")
RATES = st.builds(Rate, count=st.integers(1, 1_000), per_s=st.integers(1, 1_000))


def test_a_tenant_without_a_budget_has_the_default_one() -> None:
    assert budget_of(None) == DEFAULT_RATE == Rate(limits.TENANT_USES_PER_S, 1)


def test_a_budget_is_set_and_set_again() -> None:
    first = limited(None, ASKED)
    second = limited(first, LimitTenant(tenant="shop", count=5, per_s=1, reason="test"))
    assert (first.rate, first.revision) == (Rate(10, 2), 1)
    assert (budget_of(second), second.revision) == (Rate(5, 1), 2)


@pytest.mark.parametrize(
    "bad",
    [
        {"tenant": "Shop"},
        {"count": 0},
        {"count": 10**10},
        {"per_s": 0},
        {"per_s": 10**6},
        {"reason": ""},
    ],
    ids=str,
)
def test_what_is_no_budget_is_refused(bad: dict[str, object]) -> None:
    members = {"tenant": "shop", "count": 10, "per_s": 2, "reason": "test"} | bad
    with pytest.raises(MalformedRequest, match="expected"):
        limited(None, LimitTenant(**members))  # type: ignore[arg-type]  # bad on purpose


@given(RATES, RATES)
def test_a_change_is_weaker_if_it_lets_more_through_at_any_time(old: Rate, new: Rate) -> None:
    most_in = [
        (old.count + second * old.count / old.per_s, new.count + second * new.count / new.per_s)
        for second in (0, 1, 10, 10**6, 10**9)
    ]
    lets_more = any(after > before * (1 + 1e-9) for before, after in most_in)
    assert weakened(old, new) == lets_more
