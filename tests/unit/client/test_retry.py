"""When a client sends again, told by numbers alone."""

import pytest

from keystead.client.retry import (
    Retry,
    Verdict,
    aside_s,
    may_repeat,
    parse_retry_after,
    verdict_on,
    wait_s,
)
from keystead.errors import KeysteadError, error_for_code

PASSING = {"overloaded", "reservation_ended", "custody_unavailable", "log_unavailable"}
CODES = {
    *PASSING,
    "malformed_request",
    "unauthenticated",
    "handle_invalid",
    "permission_denied",
    "handle_revoked",
    "key_state",
    "replay_conflict",
    "conflict",
    "limit_exceeded",
    "state_rolled_back",
    "internal",
    "a_code_of_a_later_release",
}


def error(code: str, retry_after_s: float | None = None) -> KeysteadError:
    return error_for_code(code, "why", retry_after_s=retry_after_s)


@pytest.mark.parametrize("code", sorted(CODES))
def test_only_what_passes_is_sent_again(code: str) -> None:
    assert may_repeat(Retry(), error(code, 1.0), repeatable=True) == (code in PASSING)
    assert may_repeat(Retry(), error(code, 1.0), repeatable=False) == (code == "overloaded")


@pytest.mark.parametrize("code", sorted(CODES))
def test_another_front_is_asked_only_for_what_it_may_have(code: str) -> None:
    moves = {"overloaded", "custody_unavailable", "log_unavailable"}
    expected = Verdict.NEXT if code in moves else Verdict.FINAL
    if code == "reservation_ended":
        expected = Verdict.SAME
    if code == "state_rolled_back":
        expected = Verdict.LEAVE
    assert verdict_on(Retry(), error(code, 1.0), repeatable=True) is expected
    once = Verdict.NEXT if code == "overloaded" else Verdict.FINAL
    assert verdict_on(Retry(), error(code, 1.0), repeatable=False) is once


def test_a_budget_is_waited_for_where_it_was_refused() -> None:
    patient = Retry(limits_pass=True)
    assert verdict_on(patient, error("limit_exceeded", 1.0), repeatable=True) is Verdict.SAME


def test_a_front_is_put_aside_for_a_bounded_time() -> None:
    policy = Retry(aside_s=10.0)
    drawn = [aside_s(policy, retry_after_s=None, random=random) for random in (0.0, 0.5, 1.0)]
    assert drawn == [5.0, 7.5, 10.0]
    told = [aside_s(policy, retry_after_s=wait, random=0.9) for wait in (0.0, 2.0, 3600.0)]
    assert told == [0.0, 2.0, 10.0]


def test_limits_pass_for_those_who_say_so_and_are_told_when() -> None:
    patient = Retry(limits_pass=True)
    assert may_repeat(patient, error("limit_exceeded", 1.0), repeatable=True)
    assert not may_repeat(patient, error("limit_exceeded"), repeatable=True)
    assert not may_repeat(patient, error("limit_exceeded", 1.0), repeatable=False)


def test_waits_are_a_random_share_of_a_bound_that_doubles() -> None:
    policy = Retry(base_s=0.1, cap_s=0.5, tries_max=9)
    bounds = [
        wait_s(policy, tries=n, left_s=60, retry_after_s=None, random=1.0) for n in range(1, 6)
    ]
    assert bounds == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.5])
    assert wait_s(policy, tries=3, left_s=60, retry_after_s=None, random=0.25) == pytest.approx(0.1)
    assert wait_s(policy, tries=3, left_s=60, retry_after_s=None, random=0.0) == 0.0


def test_retry_after_is_a_floor_under_the_jitter() -> None:
    policy = Retry(base_s=0.1)
    assert wait_s(policy, tries=1, left_s=60, retry_after_s=3.0, random=0.5) == pytest.approx(3.05)


def test_no_wait_reaches_past_the_deadline_or_the_last_try() -> None:
    policy = Retry(tries_max=2)
    assert wait_s(policy, tries=1, left_s=2.9, retry_after_s=3.0, random=0.0) is None
    assert wait_s(policy, tries=2, left_s=60, retry_after_s=None, random=0.0) is None
    assert wait_s(policy, tries=1, left_s=0.0, retry_after_s=None, random=0.0) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("1.5", 1.5),
        ("Fri, 15 Jan 2027 08:00:30 GMT", 30.0),
        ("Fri, 15 Jan 2027 08:00:30 -0000", 30.0),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("٣", None),
        ("nan", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, 1_800_000_000_000) == seconds
