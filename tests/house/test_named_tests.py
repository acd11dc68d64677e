"""Documents name the tests that show what they say: each name is that of a test that there is."""

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from house.tree import ROOT, Finding, check_none

FOLDERS = "unit|property|contract|fault|integration|house|sim|vectors|fuzz"
_NAMED = re.compile(
    rf"`(?:tests/)?(?P<path>(?:{FOLDERS})/[\w/]+\.py)?(?:::(?P<test>test_\w+|Test\w+))?`"
)


@cache
def defined(path: str) -> frozenset[str] | None:
    """The functions and classes of a file below ``tests``; None if there is no such file."""
    file = ROOT / "tests" / path
    if not file.is_file():
        return None
    tree = ast.parse(file.read_text(encoding="utf-8"), path)
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


def named_tests(text: str) -> Iterator[tuple[str, str, int]]:
    """File, test and line of each one named.

    ``::test_x`` is of the file that was named before it, in its row or paragraph.
    """
    path = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if not line or line.startswith("|"):
            path = ""
        for found in _NAMED.finditer(line):
            path = found["path"] or path
            if found["path"] or found["test"]:
                yield path, found["test"] or "", number


def missing_tests(name: str, text: str) -> Iterator[Finding]:
    for path, test, number in named_tests(text):
        names = defined(path) if path else None
        if names is None or (test and test not in names):
            yield Finding(name, number, f"names {path}::{test}, which is not there", "name it anew")


def test_documents_name_tests_that_there_are() -> None:
    check_none(
        finding
        for path in sorted((ROOT / "docs").rglob("*.md"))
        for finding in missing_tests(
            path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        )
    )


def test_the_register_of_invariants_names_some_of_each() -> None:
    text = (ROOT / "docs/invariants.md").read_text(encoding="utf-8")
    table = text.partition("## Where and by what")[2].partition("## Metrics")[0]
    rows = [row for row in table.splitlines() if row.startswith("| I")]
    assert all(list(named_tests(row)) for row in rows)
    assert {row.split("|")[1].partition(",")[0].strip() for row in rows} == {
        f"I{n}" for n in range(1, 13)
    }


@pytest.mark.parametrize(
    "text",
    [
        "| a | `house/test_tests_gone.py` |",
        "| a | `tests/house/test_named_tests.py::test_gone` |",
        "| a | `house/test_named_tests.py::test_rule_can_pass`, `::test_gone` |",
        "| a | `::test_rule_can_pass` |",
        "| a | `house/test_named_tests.py` |\n| b | `::test_rule_can_pass` |",
    ],
)
def test_rule_can_fail(text: str) -> None:
    assert len(list(missing_tests("docs/a.md", text))) == 1


def test_rule_can_pass() -> None:
    text = "`tests/house/test_named_tests.py::test_rule_can_fail`,\n`::test_rule_can_pass` (`x.py`)"
    assert not list(missing_tests("docs/a.md", text))
