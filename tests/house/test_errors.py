"""Every error says something, and every wire code of the design has one class."""

import inspect
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from house.tree import ROOT, Finding, check_none
from keystead.errors import KeysteadError

WIRE_CODES = frozenset(
    {
        "malformed_request",
        "unauthenticated",
        "permission_denied",
        "purpose_mismatch",
        "context_mismatch",
        "algorithm_forbidden",
        "handle_invalid",
        "handle_expired",
        "handle_revoked",
        "key_state",
        "reservation_ended",
        "approval_required",
        "replay_conflict",
        "limit_exceeded",
        "overloaded",
        "custody_unavailable",
        "log_unavailable",
        "state_rolled_back",
        "not_found",
        "conflict",
        "internal",  # a fault of Keystead's own: the design lists only what a caller can act on
    }
)

Errors = Sequence[type[KeysteadError]]


def tree_of(root: type[KeysteadError]) -> list[type[KeysteadError]]:
    """The class and all below it that Keystead defines; the bad ones of these tests are not."""
    below = [found for cls in root.__subclasses__() for found in tree_of(cls)]
    return [root, *below] if root.__module__.startswith("keystead.") else below


def finding(cls: type[KeysteadError], what: str, do: str) -> Finding:
    path = Path(inspect.getfile(cls)).relative_to(ROOT).as_posix()
    return Finding(path, inspect.getsourcelines(cls)[1], f"{cls.__name__} {what}", do)


def render_findings(classes: Errors) -> Iterator[Finding]:
    message = "expected 3 parts, got 2"
    for cls in classes:
        if message not in str(cls(message)):
            yield finding(cls, "does not render its message", "pass it on to Exception.__init__")
        if not (cls.__dict__.get("__doc__") or "").strip():
            yield finding(cls, "has no docstring", "say whose fault it is and what to do next")


def code_findings(classes: Errors) -> Iterator[Finding]:
    own = {cls: cls.__dict__["code"] for cls in classes if cls.__dict__.get("code")}
    times = Counter(own.values())
    for cls, code in own.items():
        if code not in WIRE_CODES:
            yield finding(cls, f"has the unknown code {code}", "add it to WIRE_CODES")
        if times[code] > 1:
            yield finding(cls, f"shares the code {code}", "one class a code; inherit for the rest")
    for code in sorted(WIRE_CODES - times.keys()):
        yield finding(classes[0], f"has nothing below it for {code}", "define its class")


def test_errors_render() -> None:
    check_none(render_findings(tree_of(KeysteadError)))


def test_wire_codes() -> None:
    check_none(code_findings(tree_of(KeysteadError)))


def test_error_rules_can_fail() -> None:
    class Mute(KeysteadError):
        code = "key_state"

        def __str__(self) -> str:
            return ""

    class Twin(KeysteadError):
        """Has a docstring."""

        code = "key_state"

    class Stranger(KeysteadError):
        """Has a docstring."""

        code = "unheard_of"

    bad = [Mute, Twin, Stranger]
    assert [f.what for f in render_findings(bad)] == [
        "Mute does not render its message",
        "Mute has no docstring",
    ]
    found = [f.what for f in code_findings(bad)]
    assert found[:3] == [
        "Mute shares the code key_state",
        "Twin shares the code key_state",
        "Stranger has the unknown code unheard_of",
    ]
    assert len(found[3:]) == len(WIRE_CODES) - 1
