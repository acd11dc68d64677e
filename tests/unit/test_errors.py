"""The tree of errors: whose fault, which code, which status, and how it reads."""

import re

import pytest

from keystead import errors
from keystead.errors import (
    CallerError,
    InvariantViolation,
    KeysteadError,
    LimitExceeded,
    ServiceError,
    SignatureInvalid,
    StartupError,
    error_for_code,
)

LINE = re.compile(r"(\w+) +(?:.* )?([a-z_]+) +(\d{3})$", re.MULTILINE)
DRAWN = {name: (code, int(status)) for name, code, status in LINE.findall(errors.__doc__ or "")}


def test_the_drawn_tree_names_every_class_with_its_code_and_status() -> None:
    coded = {
        name: (cls.code, cls.status)
        for name, cls in vars(errors).items()
        if isinstance(cls, type) and issubclass(cls, KeysteadError)
        if cls.code and "code" in vars(cls)  # of its own, not one that it only inherits
    }
    assert coded == DRAWN
    assert len(DRAWN) == 21
    for name in errors.__all__:
        assert name in (errors.__doc__ or "") or name == "error_for_code"


@pytest.mark.parametrize("name", DRAWN)
def test_a_code_stands_for_its_class(name: str) -> None:
    code, status = DRAWN[name]
    error = error_for_code(code, "no", hint="do", retry_after_s=2.0)
    assert type(error).__name__ == name
    assert (error.code, error.status, error.retry_after_s) == (code, status, 2.0)


def test_a_class_that_inherits_its_code_does_not_stand_for_it() -> None:
    assert issubclass(errors.CommitContended, errors.LogUnavailable)
    assert type(error_for_code("log_unavailable", "no")) is errors.LogUnavailable


@pytest.mark.parametrize("code", ["", "unheard_of", "MALFORMED_REQUEST"])
def test_an_unknown_code_is_a_plain_error(code: str) -> None:
    assert type(error_for_code(code, "no")) is KeysteadError


def test_a_caller_error_is_a_4xx_and_a_service_error_a_503() -> None:
    for name, (code, status) in DRAWN.items():
        cls = type(error_for_code(code, "no"))
        if issubclass(cls, CallerError):
            assert 400 <= status < 500, name
        elif issubclass(cls, ServiceError):
            assert status == 503, name
        else:
            assert cls is InvariantViolation


def test_the_text_is_the_message_and_what_to_do_next() -> None:
    assert str(LimitExceeded("expected 1, met 2")) == "expected 1, met 2"
    assert str(LimitExceeded("expected 1, met 2", hint="Send less")) == (
        "expected 1, met 2. Send less"
    )
    assert LimitExceeded("no").retry_after_s is None


@pytest.mark.parametrize("cls", [SignatureInvalid, StartupError])
def test_what_never_crosses_the_wire_has_no_code(cls: type[KeysteadError]) -> None:
    assert cls.code == ""
