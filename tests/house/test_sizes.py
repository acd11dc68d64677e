"""Files and functions stay short: medians hardly tell good from tangled, the tails do."""

import ast
from collections.abc import Iterable, Iterator

from house.tree import CODE, Finding, Source, check_none, snippet, sources

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70  # the docstring not counted


def size_findings(tree: Iterable[Source]) -> Iterator[Finding]:
    for source in tree:
        lines = len(source.text.splitlines())
        if lines > FILE_LINES_MAX:
            yield source.finding(
                lines, f"{lines} lines, expected {FILE_LINES_MAX} at most", "split it by topic"
            )
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = function_lines(node)
                if size > FUNCTION_LINES_MAX:
                    yield source.finding(
                        node.lineno,
                        f"{node.name} has {size} lines, expected {FUNCTION_LINES_MAX} at most",
                        "name its steps and make them functions",
                    )


def function_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    last = node.end_lineno or node.lineno
    lines = last - node.lineno + 1
    if ast.get_docstring(node, clean=False) is not None:
        docstring = node.body[0]
        lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return lines


def test_sizes() -> None:
    check_none(size_findings(sources(*CODE)))


def test_file_rule_can_fail() -> None:
    assert not list(size_findings([snippet("x = 1\n" * 600)]))
    assert len(list(size_findings([snippet("x = 1\n" * 601)]))) == 1


def test_function_rule_can_fail() -> None:
    docstring = '    """One.\n\n    Two.\n    """\n'
    assert not list(size_findings([snippet("def f():\n" + docstring + "    x = 1\n" * 69)]))
    assert len(list(size_findings([snippet("async def f():\n" + "    x = 1\n" * 70)]))) == 1
