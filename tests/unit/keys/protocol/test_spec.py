"""The TLA+ modules and the code name each other: no row of the table is about nothing."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
SPEC = ROOT / "spec"
SOURCE = ROOT / "src" / "keystead"
MODULES = sorted(path.stem for path in SPEC.glob("*.tla"))
ROW = re.compile(r"^\| `(\w+)` \| `(\w+)` \| (.+) \|$", re.MULTILINE)
ROWS = [
    (module, action, re.findall(r"`([\w/.]+)`", functions))
    for module, action, functions in ROW.findall((SPEC / "README.md").read_text())
]
OF_NOBODY = {("Reservations", "Tick")}
NAME = re.compile(r"\w+")
_REST = r"(?:\([^)\n]*\))? =="
DEFINITION = re.compile(rf"^(\w+){_REST}(.*?)(?=^\w+{_REST}|^=+$)", re.MULTILINE | re.DOTALL)
"""An operator's name, and what it stands for."""


def code_of(module: str) -> str:
    """A module without its comments."""
    text = (SPEC / f"{module}.tla").read_text()
    text = re.sub(r"\(\*.*?\*\)", "", text, flags=re.DOTALL)
    return re.sub(r"\\\*.*", "", text)


def defined(module: str) -> set[str]:
    return set(re.findall(r"^(\w+)(?:\([^)]*\))? ==", code_of(module), re.MULTILINE))


def actions(module: str) -> set[str]:
    """What ``Next`` is made of."""
    body = re.search(r"^Next ==(.*?)^Spec ==", code_of(module), re.MULTILINE | re.DOTALL)
    assert body is not None
    return set(NAME.findall(body[1])) & defined(module)


def names_in(path: Path) -> set[str]:
    """Functions, classes and methods of a module: the latter as ``Class.method``."""
    tree, names = ast.parse(path.read_text()), set[str]()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}.{inner.name}"
                for inner in node.body
                if isinstance(inner, ast.FunctionDef)
            }
    return names


@pytest.mark.parametrize("module", MODULES)
def test_every_action_has_its_functions(module: str) -> None:
    told = {action for name, action, _ in ROWS if name == module}
    assert told == actions(module) - {action for name, action in OF_NOBODY if name == module}
    assert len(told) > 5


def test_every_function_exists() -> None:
    named = {function for _, _, functions in ROWS for function in functions}
    missing = []
    for function in sorted(named):
        path, _, name = function.partition(".")
        if name not in names_in(SOURCE / f"{path}.py"):
            missing.append(function)
    assert missing == []
    assert len(named) > 20


@pytest.mark.parametrize("module", MODULES)
def test_a_configuration_names_what_its_module_has(module: str) -> None:
    config = (SPEC / f"{module}.cfg").read_text()
    checked = re.findall(r"^(?:INVARIANTS?|PROPERTIES|SPECIFICATION) (.+)$", config, re.MULTILINE)
    names = {name for line in checked for name in line.split()}
    assert {"Spec"} < names <= defined(module)
    assigned = set(re.findall(r"^  (\w+) = ", config, re.MULTILINE))
    constants = re.search(r"^CONSTANTS?(.*?)^\n", code_of(module), re.MULTILINE | re.DOTALL)
    assert constants is not None
    assert assigned == set(NAME.findall(constants[1]))


@pytest.mark.parametrize("module", MODULES)
def test_every_action_says_what_becomes_of_every_variable(module: str) -> None:
    """What an action forgets may become anything: each name is primed or unchanged in it."""
    code = code_of(module)
    variables = re.search(r"^VARIABLES(.*?)^vars ==", code, re.MULTILINE | re.DOTALL)
    assert variables is not None
    names = set(NAME.findall(variables[1]))
    bodies = dict(DEFINITION.findall(code))
    for action in actions(module):
        assert told_in(action, bodies) >= names, (
            f"{action} forgets {names - told_in(action, bodies)}"
        )


def told_in(action: str, bodies: dict[str, str]) -> set[str]:
    """The variables that an action primes or leaves, by itself or by what it is made of."""
    body = bodies[action]
    told = set(re.findall(r"(\w+)'", body))
    for kept in re.findall(r"UNCHANGED (?:<<(.*?)>>|(\w+))", body, re.DOTALL):
        told |= set(NAME.findall(" ".join(kept)))
    for other in set(NAME.findall(body)) & bodies.keys() - {action}:
        told |= told_in(other, bodies)
    return told
