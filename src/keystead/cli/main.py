"""The entry point: finds the command, runs it, and turns what comes of it into an exit status.

::

    0  done
    1  refused: the caller's request, or a signature that does not verify
    2  usage: what was typed, or a file that was named
    3  unavailable: the node, the service, or this machine

``keystead key status --watch`` has two more: 4, the rollout was rolled back; 5, it is halted.
``keystead verify`` has two of its own for what a compromised version signed: 6, the log proves that
it is older than the compromise; 7, the log has no record of it.

Errors are on stderr, and no expected one is a traceback. A command's module is loaded when the
command is asked for, and the HTTP client only when a node is.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, MutableMapping
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from keystead import __version__
from keystead.cli.command import flattened, want_command
from keystead.cli.options import Operator
from keystead.cli.show import print_error, print_json
from keystead.errors import CallerError, KeysteadError, SignatureInvalid, StartupError

__all__ = ["COMMANDS", "REFUSED", "UNAVAILABLE", "USAGE", "main", "root"]

REFUSED, USAGE, UNAVAILABLE = 1, 2, 3

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("up", "Start a node: everything on the embedded default."),
    "status": ("status", "Whether the node works, and which protections are on."),
    "tour": ("touring", "The whole cycle on the running node, on real files."),
    "key": ("key_commands", "Make, show, rotate and stop keys; fetch their public parts."),
    "handle": ("handle", "Issue, narrow, inspect and revoke handles."),
    "emergency": ("emergency", "Stop a tenant, or everything, at once; and end that again."),
    "report": ("rollout_report", "Tell that what a key signed does not verify."),
    "acknowledge": ("rollout_acknowledge", "Tell that you hold a version's public part."),
    "history": ("history", "What changed of keys, plans and budgets, or was in force then."),
    "tenant": ("tenant", "Show and set what each tenant may spend of a node."),
    "sign": ("sign", "Sign by a handle: tokens, firmware, certificates, handshakes."),
    "ledger": ("ledger", "Append to a ledger."),
    "verify": ("verify", "Verify what was signed, from public facts alone."),
    "data": ("data", "Encrypt, decrypt, derive and authenticate by a handle."),
    "log": ("log_commands", "Search, prove, disclose and forget records of the log."),
    "drill": ("drill", "Put a running node through a drill, and hold it to what it is made for."),
    "bench": ("benching", "Measure a node beside what bounds it, and beside OpenBao."),
}
"""Command to its module in this package, and its line in the help."""


class _Loaded(MutableMapping[str, Any]):
    """The commands by name, each loaded when it is first looked up."""

    def __init__(self) -> None:
        self._found: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401  typer's own class of commands is private
        if name not in self._found:
            module = importlib.import_module(f"keystead.cli.{COMMANDS[name][0]}")
            self._found[name] = get_command(module.app)
        return self._found[name]

    def __setitem__(self, name: str, value: Any) -> None:  # noqa: ANN401  as __getitem__
        self._found[name] = value

    def __delitem__(self, name: str) -> None:
        del self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Root(TyperGroup):
    """The command ``keystead``; its own help loads none of the commands that it lists."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401  whatever typer gives a group
        super().__init__(**settings)
        self.commands = _Loaded()

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002  typer's context class is private
        return list(COMMANDS)

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401  as list_commands
        outline = TyperGroup(
            name=self.name,
            help=self.help,
            epilog=self.epilog,
            params=self.params,
            rich_markup_mode=self.rich_markup_mode,
            commands={name: TyperCommand(name, help=line) for name, (_, line) in COMMANDS.items()},
        )
        outline.format_help(ctx, formatter)


def _keystead(
    ctx: typer.Context,
    operator: Operator,
    *,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Keys stay in one process; everybody else holds handles."""
    ctx.obj = operator
    if version:
        if operator.as_json:
            print_json({"version": __version__})
        else:
            sys.stdout.write(f"keystead {__version__}\n")
        raise typer.Exit
    want_command(ctx, as_json=operator.as_json)


def root() -> Any:  # noqa: ANN401  typer's own class of commands is private
    """The whole tree of commands."""
    app = typer.Typer(name="keystead", cls=_Root, add_completion=False, rich_markup_mode="rich")
    app.callback(invoke_without_command=True, epilog="Example: keystead status --json")(
        flattened(_keystead)
    )
    return get_command(app)


def main(arguments: list[str] | None = None) -> int:
    """Run a command line, by default this process's own; gives the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in given
    try:
        status = root().main(list(given), prog_name="keystead", standalone_mode=False)
        sys.stdout.flush()
    except KeysteadError as error:
        status = _status_of(error)
        print_error(error, status, as_json=as_json)
    except typer.TyperException as error:
        status = USAGE
        _print_usage_error(error, as_json=as_json)
    except typer.Abort:
        status = REFUSED
        refusal = CallerError("not confirmed: nothing was changed")
        print_error(refusal, status, as_json=as_json, code="not_confirmed")
    except BrokenPipeError:
        status = _reader_gone()
    except OSError as exc:
        status = UNAVAILABLE
        words = exc.strerror or type(exc).__name__
        where = f" {exc.filename}" if exc.filename else ""
        print_error(StartupError(f"this machine says:{where} {words}"), status, as_json=as_json)
    return status if isinstance(status, int) else 0


def _status_of(error: KeysteadError) -> int:
    return REFUSED if isinstance(error, CallerError | SignatureInvalid) else UNAVAILABLE


def _print_usage_error(error: typer.TyperException, *, as_json: bool) -> None:
    ctx = getattr(error, "ctx", None)
    hint = f"See {ctx.command_path} --help" if ctx is not None else "See keystead --help"
    named = error.param_hint if isinstance(error, typer.BadParameter) else None
    words = f"{named}: {error.message}" if named else error.format_message()
    refusal = CallerError(words, hint=hint)
    print_error(refusal, USAGE, as_json=as_json, code="usage")


def _reader_gone() -> int:
    """Stdout was closed by whoever read it, as ``head`` does: end in silence (signal(7))."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return REFUSED
