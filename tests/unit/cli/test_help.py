"""Rules over the whole tree of commands."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from keystead.cli.main import COMMANDS, root

SECRET = re.compile(r"token|secret|password|passphrase|pin$|proof|handle|private", re.IGNORECASE)
IDS = {
    ("log", "search", "handle"),
    ("log", "forget", "handle"),
    ("handle", "show", "handle_id"),
}
"""Parameters of such a name that hold a public id."""


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:  # noqa: ANN401  typer's classes of commands are private
    below = getattr(command, "commands", None)
    if below is None:
        yield path, command
        return
    for name in below:
        yield from leaves(below[name], (*path, name))


LEAVES = dict(leaves(root()))


def examples(command: Any) -> list[str]:  # noqa: ANN401  as leaves
    return [part for part in (command.epilog or "").split("\n\n") if "keystead " in part]


def test_the_tree_has_its_commands() -> None:
    assert {path[0] for path in LEAVES} == set(COMMANDS)
    assert ("key", "revoke") in LEAVES
    assert len(LEAVES) > 30


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_help_shows_examples_that_parse(path: tuple[str, ...]) -> None:
    found = examples(LEAVES[path])
    assert found
    for example in found:
        words = shlex.split(example.replace("\\[", "["), comments=True)
        words = words[words.index("keystead") + 1 :]
        assert tuple(words[: len(path)]) == path
        arguments = [word for word in words[len(path) :] if not word.startswith(">")]
        for place, word in enumerate(words):
            if word == ">":
                arguments.remove(words[place + 1])
        with LEAVES[path].make_context(" ".join(path), arguments) as ctx:
            assert ctx.params


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_speaks_json_and_says_what_it_does(path: tuple[str, ...]) -> None:
    command = LEAVES[path]
    options = {option for param in command.params for option in param.opts}
    assert "--json" in options
    assert command.help.endswith(".")
    assert all(getattr(param, "help", "") for param in command.params)


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_no_secret_is_an_argument(path: tuple[str, ...]) -> None:
    for param in LEAVES[path].params:
        if SECRET.search(param.name) and (*path, param.name) not in IDS:
            assert param.type_descriptor.annotation is Path, (
                f"{param.name} takes a value, not a file"
            )


def test_the_rule_about_secrets_can_fail() -> None:
    app = typer.Typer()

    @app.command()
    def leak(token: str) -> None:
        del token

    command: Any = get_command(app)
    [param] = [param for param in command.params if SECRET.search(param.name)]
    assert param.type_descriptor.annotation is not Path
