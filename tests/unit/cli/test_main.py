"""Exit statuses, errors and start-up."""

import json
import subprocess
import sys

import pytest
from typer.core import TyperGroup

from keystead import __version__, errors
from keystead.errors import CallerError, KeysteadError, SignatureInvalid, error_for_code
from unit.cli.conftest import Run
from unit.cli.node import KEY, READY, FakeNode, problem


def wire_codes() -> list[str]:
    kinds = (getattr(errors, name) for name in errors.__all__)
    return sorted(
        {k.code for k in kinds if isinstance(k, type) and issubclass(k, KeysteadError) and k.code}
    )


@pytest.mark.parametrize("code", wire_codes())
def test_refusals_end_with_1_and_failures_with_3(code: str, run: Run, node: FakeNode) -> None:
    # 400 for all: retries depend on the code and on nothing else, and tests have no time for them.
    node.on("POST /v1/revocations", problem(code), status=400)
    ran = run("handle", "revoke", "l-1", "--reason", "lost", "--json")
    refused = isinstance(error_for_code(code, "x"), CallerError)
    assert ran.status == (1 if refused else 3)
    assert ran.out == ""
    told = json.loads(ran.err)
    assert told == {
        "code": code,
        "error": "why",
        "hint": "what to do",
        "notes": told["notes"],
        "exit_status": ran.status,
    }
    assert "request id r-9" in told["notes"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SignatureInvalid("no"), 1),
        (errors.SignedByCompromised("no"), 1),
        (errors.StartupError("no"), 3),
        (errors.InvariantViolation("no"), 3),
        (KeysteadError("no"), 3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_of_this_side(
    error: KeysteadError, status: int, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(TyperGroup, "main", fail)
    ran = run("status", "--json")
    assert (ran.status, json.loads(ran.err)["exit_status"]) == (status, status)
    assert run("status").err == "keystead: no\n"


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["key", "nonsense"],
        ["key", "show"],
        ["key", "list", "--limit", "many"],
        ["key", "list", "--nonsense"],
        ["key", "list"],
        ["key", "suspend", "shop"],
        ["key", "suspend", "shop", "--reason", "x", "--version", "0"],
        ["key", "create", "shop", "--purpose", "nonsense"],
        ["status", "--url", "http://node.example"],
        ["status", "--url", "unix:relative"],
        ["handle", "inspect"],
        ["handle", "inspect", "--handle-file", "absent"],
        ["handle", "revoke", "--reason", "x"],
        ["verify", "jwt", "absent", "--key", "shop"],
        ["verify", "tls", "--transcript-hash", "zz", "--scheme", "1", "--signature", "absent"],
        ["up", "--tls-cert", "only.pem"],
        [],
    ],
    ids=" ".join,
)
def test_usage_ends_with_2(words: list[str], run: Run) -> None:
    ran = run(*words, "--json")
    assert (ran.status, ran.out) == (2, "")
    told = json.loads(ran.err)
    assert (told["code"], told["exit_status"]) == ("usage", 2)
    assert told["hint"].startswith("See keystead")


def test_a_group_alone_shows_its_help(run: Run) -> None:
    for words in [], ["key"]:
        ran = run(*words)
        assert ran.status == 2
        assert "Usage: keystead" in ran.out
        ran = run("--json", *words)
        assert (ran.status, ran.out) == (2, "")
        assert json.loads(ran.err)["error"] == "expected a command"


def test_a_node_that_is_not_there_ends_with_3(run: Run) -> None:
    ran = run("status", "--url", "http://127.0.0.1:1")
    assert ran.status == 3
    assert "keystead up" in ran.err
    assert "Traceback" not in ran.err


def test_status(run: Run, node: FakeNode) -> None:
    node.on("GET /ready", READY)
    assert run("status", "--json").json["node"] == "node1"
    ran = run("status")
    assert ran.status == 0
    assert "anchor" in ran.out
    node.on("GET /ready", {"ready": False, "reasons": ["the vault is away"]}, status=503)
    ran = run("status")
    assert ran.status == 3
    assert "the vault is away" in ran.out
    assert run("--json", "status").json["ready"] is False


def test_options_stand_before_or_behind_the_command(run: Run, node: FakeNode) -> None:
    node.on("GET /v1/keys", [KEY])
    for words in ["--json", "key", "list"], ["key", "list", "--json"]:
        assert [key["name"] for key in run(*words).json] == ["shop"]
    assert run("--url", "http://127.0.0.1:1", "key", "list", "--url", node.url).status == 0


def test_strangers_text_is_shown_without_control_characters(run: Run, node: FakeNode) -> None:
    node.on("GET /v1/keys", [KEY | {"labels": {"a": "\x1b[31m[bold]x[/bold]\r"}}])
    ran = run("key", "list")
    assert "\x1b" not in ran.out
    assert "[bold]x[/bold]" in ran.out
    node.on("GET /v1/keys", problem("not_found") | {"detail": "\x1b]0;x"}, status=404)
    assert "\x1b" not in run("key", "list").err


def test_nothing_is_coloured_where_nobody_looks(run: Run, node: FakeNode) -> None:
    node.on("GET /v1/keys", [KEY])
    assert "\x1b" not in run("key", "list").out


def test_version(run: Run) -> None:
    assert run("--version").out == f"keystead {__version__}\n"
    assert run("--version", "--json").json == {"version": __version__}


def test_an_unwritable_machine_ends_with_3(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TyperGroup, "main", fail)
    ran = run("status")
    assert ran.status == 3
    assert "No space left on device" in ran.err


def test_start_up_loads_what_the_command_needs() -> None:
    script = """
import sys
from keystead.cli.main import COMMANDS, main
main(["--version"])
first = sorted({"httpx", "cryptography", "rich.table", "asyncio"} & sys.modules.keys())
import importlib
for module, _ in COMMANDS.values():
    importlib.import_module(f"keystead.cli.{module}")
server = {"litestar", "granian", "uvloop", "sqlalchemy", "alembic", "keystead.vault"}
print(first, sorted(server & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[] []"


def test_the_module_is_a_command_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "keystead", "key", "show"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("keystead: Missing argument")
