"""Each public module says what it offers. Ruff sorts the names (RUF022); this rule wants them."""

import ast
import symtable
from collections.abc import Iterable, Iterator

import pytest

from house.tree import Finding, Source, check_none, snippet, sources


def export_findings(tree: Iterable[Source]) -> Iterator[Finding]:
    for source in tree:
        if not is_public(source):
            continue
        statement = all_of(source)
        if statement is None:
            yield source.finding(1, "no __all__", "list the public names, sorted")
            continue
        names = literal_names(statement.value)
        if names is None:
            yield source.finding(
                statement.lineno, "__all__ is computed", "write a literal list or tuple of names"
            )
            continue
        here = bound_names(source)
        for name in sorted({name for name in names if name not in here or names.count(name) > 1}):
            yield source.finding(
                statement.lineno,
                f"__all__ names {name}, which is {'listed twice' if name in here else 'not here'}",
                "remove it, or define it",
            )


def is_public(source: Source) -> bool:
    """No part of its name starts with an underscore, and it holds more than a docstring."""
    private = any(part.startswith("_") for part in source.module.split("."))
    docstring = ast.get_docstring(source.tree, clean=False) is not None
    return not private and len(source.tree.body) > docstring


def all_of(source: Source) -> ast.Assign | None:
    for node in source.tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")]):
                return node
    return None


def literal_names(value: ast.expr) -> list[str] | None:
    if not isinstance(value, ast.List | ast.Tuple):
        return None
    names = [item.value for item in value.elts if isinstance(item, ast.Constant)]
    texts = [name for name in names if isinstance(name, str)]
    return texts if len(texts) == len(value.elts) else None


def bound_names(source: Source) -> set[str]:
    """What the module defines, assigns or imports at its top level."""
    table = symtable.symtable(source.text, source.path, "exec")
    return {
        symbol.get_name()
        for symbol in table.get_symbols()
        if symbol.is_assigned() or symbol.is_imported()
    }


def test_exports() -> None:
    check_none(export_findings(sources("src")))


@pytest.mark.parametrize(
    "text",
    [
        "def f(): ...",
        "__all__ = ['f', 'g']\ndef f(): ...",
        "__all__ = ['f', 'f']\ndef f(): ...",
        "__all__ = sorted(globals())",
        "__all__ = ['f', g]\ndef f(): ...",
        "__all__ = ['inner']\ndef f():\n    inner = 1",
    ],
)
def test_export_rule_can_fail(text: str) -> None:
    assert len(list(export_findings([snippet(text)]))) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("src/keystead/keys/__init__.py", '"""Only a docstring."""'),
        ("src/keystead/keys/_private.py", "def f(): ..."),
        ("src/keystead/__main__.py", "import sys"),
        (
            "src/keystead/keys/a.py",
            """
            from x import a
            import b.c
            d: int = 1
            if d:
                class E: ...
            __all__ = ('E', 'a', 'b', 'd')
            """,
        ),
    ],
)
def test_export_rule_can_pass(path: str, text: str) -> None:
    assert not list(export_findings([snippet(text, path)]))
