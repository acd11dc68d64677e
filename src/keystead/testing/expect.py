"""Expectations of the contract suites, so that no test framework is needed to import them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["check_equal", "check_raises", "check_that"]


def check_that(holds: bool, what: str) -> None:  # noqa: FBT001  the expectation itself is the value
    """Fail unless it holds.

    Raises:
        AssertionError: it does not; says what was expected.
    """
    if not holds:
        raise AssertionError(f"expected: {what}")


def check_equal(met: object, expected: object, what: str) -> None:
    """Fail unless both are equal.

    Raises:
        AssertionError: they are not; says what was expected and met.
    """
    if met != expected:
        raise AssertionError(f"{what}: expected {expected!r}, met {met!r}")


@contextmanager
def check_raises(kind: type[BaseException], what: str) -> Iterator[None]:
    """Fail unless the block raises exactly this kind of error, or one below it.

    Raises:
        AssertionError: it raised nothing.
    """
    try:
        yield
    except kind:
        return
    raise AssertionError(f"{what}: expected {kind.__name__}, met no error")
