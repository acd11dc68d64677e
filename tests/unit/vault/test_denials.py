"""Denials: so many a minute are recorded one by one, the rest counted, and nothing grows on."""

import pytest

from keystead import limits
from keystead.vault.denials import DenialLimiter

MINUTE = 60_000
EACH = limits.DENIALS_RECORDED_PER_MINUTE
NOW = 1_000 * MINUTE


def recorded(limiter: DenialLimiter, scope: str, code: str, times: int, now: int = NOW) -> int:
    return sum(limiter.admit(scope, code, now) for _ in range(times))


def test_so_many_are_recorded() -> None:
    limiter = DenialLimiter()
    assert recorded(limiter, "h1", "key_state", EACH + 500) == EACH


def test_scopes_and_codes_are_apart() -> None:
    """One noisy handle does not hide another's denials, nor its own of another kind."""
    limiter = DenialLimiter()
    assert recorded(limiter, "h1", "key_state", EACH + 1) == EACH
    assert recorded(limiter, "h2", "key_state", 1) == 1
    assert recorded(limiter, "h1", "handle_expired", 1) == 1


def test_the_rest_are_counted_once_the_minute_is_over() -> None:
    limiter = DenialLimiter()
    recorded(limiter, "h1", "key_state", EACH + 500)
    recorded(limiter, "h2", "key_state", EACH)
    recorded(limiter, "h3", "handle_expired", EACH + 1)
    assert limiter.summaries(NOW + MINUTE - 1) == []
    assert sorted(limiter.summaries(NOW + MINUTE)) == [
        ("h1", "key_state", 500),
        ("h3", "handle_expired", 1),
    ]
    assert limiter.summaries(NOW + MINUTE) == []
    assert limiter.summaries(NOW + 9 * MINUTE) == []


def test_a_new_minute_starts_anew() -> None:
    limiter = DenialLimiter()
    recorded(limiter, "h1", "key_state", EACH + 1)
    limiter.summaries(NOW + MINUTE)
    assert recorded(limiter, "h1", "key_state", EACH + 1, NOW + MINUTE) == EACH


def test_the_end_counts_the_minute_that_is_not_over() -> None:
    limiter = DenialLimiter()
    recorded(limiter, "h1", "key_state", EACH + 7)
    assert limiter.summaries(NOW, ending=True) == [("h1", "key_state", 7)]


def test_every_denial_is_recorded_or_counted() -> None:
    limiter = DenialLimiter()
    written = counted = 0
    for minute in range(5):
        now = NOW + minute * MINUTE
        counted += sum(count for _, _, count in limiter.summaries(now))
        written += recorded(limiter, "h1", "key_state", 50 * (minute + 1), now)
    counted += sum(count for _, _, count in limiter.summaries(NOW, ending=True))
    assert written + counted == 50 + 100 + 150 + 200 + 250


def test_strangers_share_one_scope_past_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever makes up scopes fills neither memory nor log."""
    monkeypatch.setattr(limits, "DENIAL_SCOPES_MAX", 10)
    limiter = DenialLimiter()
    written = sum(limiter.admit(f"h{number}", "key_state", NOW) for number in range(1_000))
    assert written == 10 + EACH
    assert limiter.summaries(NOW + MINUTE) == [("(others)", "key_state", 990 - EACH)]


def test_known_scopes_keep_their_own_count_past_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DENIAL_SCOPES_MAX", 1)
    limiter = DenialLimiter()
    assert recorded(limiter, "h1", "key_state", 2) == 2
    assert recorded(limiter, "h2", "key_state", EACH + 1) == EACH
    assert recorded(limiter, "h1", "key_state", EACH) == EACH - 2
