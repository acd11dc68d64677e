"""A suppression names the code that it silences and says why."""

import io
import re
import tokenize
from collections.abc import Iterable, Iterator

import pytest

from house.tree import CODE, Finding, Source, check_none, snippet, sources

DIRECTIVE = re.compile(
    r"#\s*(?:"
    r"(?:(?:ruff|flake8):\s*)?(?i:noqa)(?P<noqa>:\s*[A-Z]+\d+(?:[,\s]\s*[A-Z]+\d+)*)?"
    r"|ruff:\s*(?:disable|ignore|file-ignore)(?P<ruff>\[[\w\s,-]+\])?"
    r"|type:\s*ignore(?P<mypy>\[[\w\s,-]+\])?"
    r"|pragma:\s*no\s?(?P<coverage>cover|branch)"
    r")"
)
REASON_WORDS_MIN = 2


def suppression_findings(tree: Iterable[Source]) -> Iterator[Finding]:
    for source in tree:
        for line, comment in comments(source):
            directives = list(DIRECTIVE.finditer(comment))
            if not all(any(found.groups()) for found in directives):
                yield source.finding(
                    line, f"`{comment}` silences everything", "name the code: S603, arg-type"
                )
            words = re.findall(r"\w+", DIRECTIVE.sub("", comment))
            if directives and len(words) < REASON_WORDS_MIN:
                yield source.finding(
                    line, f"`{comment}` gives no reason", "write it behind the code, on the line"
                )


def comments(source: Source) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def test_suppressions() -> None:
    check_none(suppression_findings(sources(*CODE)))


@pytest.mark.parametrize(
    "comment",
    [
        "# noqa  the parser needs it",
        "# noqa: S603",
        "# NOQA:S603",
        "# noqa: S603, S607",
        "# ruff: noqa",
        "# ruff: noqa: S603",
        "# ruff: disable[S603]",
        "# type: ignore  # the stub is wrong",
        "# type: ignore[arg-type]",
        "# type: ignore[arg-type]  # noqa: S603",
        "# pragma: no cover",
    ],
)
def test_suppression_rule_can_fail(comment: str) -> None:
    assert list(suppression_findings([snippet(f"x = 1  {comment}")]))


@pytest.mark.parametrize(
    "comment",
    [
        "# noqa: S603  the argument list is our own",
        "# noqa: S603, S607  the argument list is our own",
        "# type: ignore[arg-type]  # the stub lacks bytes",
        "# type: ignore[arg-type]  # noqa: S603  the stub lacks bytes",
        "# pragma: no cover  only on a machine without memfd",
        "# nothing is silenced here",
    ],
)
def test_suppression_rule_can_pass(comment: str) -> None:
    assert not list(suppression_findings([snippet(f"x = 1  {comment}")]))


def test_suppression_rule_reads_comments_only() -> None:
    assert not list(suppression_findings([snippet('x = "# noqa"')]))
