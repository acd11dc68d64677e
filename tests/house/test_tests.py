"""Each test proves something: none is empty, none asserts a constant, none is put off silently."""

import ast
from collections.abc import Iterable, Iterator

import pytest

from house.tree import Finding, Source, check_none, snippet, sources

SKIPS = ("skip", "skipif", "importorskip")


def empty_findings(tree: Iterable[Source]) -> Iterator[Finding]:
    for source in tree:
        for node in ast.walk(source.tree):
            if (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                and node.name.startswith("test")
                and not any(map(proves, ast.walk(node)))
            ):
                yield source.finding(
                    node.lineno,
                    f"{node.name} proves nothing",
                    "assert, use pytest.raises, or call a helper named check_ or assert_",
                )


def proves(node: ast.AST) -> bool:
    match node:
        case ast.Assert():
            return True
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="pytest"), attr="raises" | "warns" | "fail")
        ):
            return True
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name.lstrip("_").startswith(("check_", "assert_"))
        case _:
            return False


def constant_findings(tree: Iterable[Source]) -> Iterator[Finding]:
    for source in tree:
        for node in ast.walk(source.tree):
            match node:
                case ast.Assert(
                    test=ast.Constant() | ast.JoinedStr() | ast.Lambda() | ast.Tuple(elts=[_, *_])
                ):
                    yield source.finding(
                        node.lineno,
                        f"`{ast.unparse(node)}` has the same outcome every time",
                        "assert what the code did; pytest.fail(why) where nothing may arrive",
                    )
                case ast.Call(func=ast.Attribute(attr="assertTrue" | "assertFalse")):
                    yield source.finding(
                        node.lineno,
                        f"`{ast.unparse(node)}` takes any second argument for its message",
                        "use a plain assert",
                    )


def skip_findings(tree: Iterable[Source]) -> Iterator[Finding]:
    for source in tree:
        nodes = list(ast.walk(source.tree))
        reasoned = {id(node.func) for node in nodes if isinstance(node, ast.Call) and reason(node)}
        for node in nodes:
            match node:
                case ast.Attribute(attr="xfail"):
                    yield source.finding(
                        node.lineno,
                        "xfail keeps a known fault in the tree",
                        "mend it, or assert what happens today and say so in limitations",
                    )
                case ast.Attribute(attr=name) if (
                    name in SKIPS
                    and ast.unparse(node).startswith("pytest.")
                    and id(node) not in reasoned
                ):
                    yield source.finding(
                        node.lineno,
                        f"`{ast.unparse(node)}` gives no reason",
                        'say what is missing and how to get it: reason="..."',
                    )


def reason(call: ast.Call) -> bool:
    """Whether a call carries ``reason=...``, or is ``pytest.skip("...")``, with text in it."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == "reason"]
    if ast.unparse(call.func) == "pytest.skip":
        given += call.args
    return any(not isinstance(value, ast.Constant) or value.value for value in given)


def test_no_empty_tests() -> None:
    check_none(empty_findings(sources("tests")))


def test_no_constant_assertions() -> None:
    check_none(constant_findings(sources("tests")))


def test_no_silent_skips() -> None:
    check_none(skip_findings(sources("tests")))


@pytest.mark.parametrize(
    "text",
    [
        "def test_a():\n    run()",
        "async def test_a():\n    pass",
        "class TestA:\n    def test_a(self):\n        checker()",
    ],
)
def test_empty_rule_can_fail(text: str) -> None:
    assert len(list(empty_findings([snippet(text)]))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "def test_a():\n    assert run()",
        "def test_a():\n    with pytest.raises(ValueError):\n        run()",
        "def test_a():\n    contract.check_durable(store)",
        "def test_a():\n    assert_refused(run)",
        "def run():\n    pass",
    ],
)
def test_empty_rule_can_pass(text: str) -> None:
    assert not list(empty_findings([snippet(text)]))


@pytest.mark.parametrize(
    "text",
    [
        "assert True",
        "assert 'right'",
        "assert f'{x} is right'",
        "assert (x == 1, 'x is one')",
        "self.assertTrue(len(x), 6)",
    ],
)
def test_constant_rule_can_fail(text: str) -> None:
    assert len(list(constant_findings([snippet(text)]))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "@pytest.mark.xfail(reason='later')\ndef test_a(): ...",
        "pytest.xfail('later')",
        "@pytest.mark.skip\ndef test_a(): ...",
        "@pytest.mark.skipif(sys.platform == 'win32')\ndef test_a(): ...",
        "pytest.skip()",
        "pytest.skip('')",
        "pytest.importorskip('pkcs11')",
    ],
)
def test_skip_rule_can_fail(text: str) -> None:
    assert len(list(skip_findings([snippet(text)]))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "pytest.skip('needs softhsm2: apt-get install softhsm2')",
        "pytest.mark.skipif(not ROOT, reason='needs root')",
        "frame.skip()",
    ],
)
def test_skip_rule_can_pass(text: str) -> None:
    assert not list(skip_findings([snippet(text)]))
