"""How a command is declared: options in groups that commands share, and an example in its help."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, get_type_hints

import typer

from keystead.cli.options import EVERYWHERE, Output

__all__ = ["alone", "command", "flattened", "group", "want_command"]

_USAGE = 2

F = TypeVar("F", bound=Callable[..., object])


def group(name: str, text: str) -> typer.Typer:
    """An empty group of commands."""
    app = typer.Typer(name=name, help=text, add_completion=False, rich_markup_mode="rich")
    # With a callback a group stays one, even of a single command.
    app.callback(help=text, invoke_without_command=True)(_want_command)
    return app


def alone() -> typer.Typer:
    """A place for one command that stands in no group."""
    return typer.Typer(add_completion=False, rich_markup_mode="rich")


def want_command(ctx: typer.Context, *, as_json: bool) -> None:
    """What a group does by itself: show its help, as a mistake in usage."""
    if ctx.invoked_subcommand is not None:
        return
    if as_json:
        ctx.fail("expected a command")
    sys.stdout.write(ctx.get_help())
    raise typer.Exit(_USAGE)


def _want_command(ctx: typer.Context) -> None:
    root = ctx.find_root().obj
    want_command(ctx, as_json=isinstance(root, Output) and root.as_json)


def command(app: typer.Typer, name: str, *examples: str) -> Callable[[F], F]:
    """Register a function as a command of ``app``, with examples under its help.

    See :func:`flattened` for its parameters. The function itself stays as it is.
    """
    heading = "Example:" if len(examples) == 1 else "Examples:"
    epilog = "\n\n".join([heading, *(example.replace("[", "\\[") for example in examples)])

    def register(function: F) -> F:
        app.command(name, epilog=epilog)(flattened(function))
        return function

    return register


def flattened(function: Callable[..., object]) -> Callable[..., object]:
    """The function with its groups of options spelled out, as typer reads them.

    A parameter whose type is a dataclass stands for the options that are its fields; common options
    that are not given behind the command are taken from before it. ``ctx`` is typer's own context.
    """
    hints = get_type_hints(function, include_extras=True)
    asked = inspect.signature(function).parameters
    groups: dict[str, type[Any]] = {}
    parameters = [_parameter("ctx", typer.Context, inspect.Parameter.empty)]
    for parameter in asked.values():
        hint = hints[parameter.name]
        if hint is typer.Context:
            continue
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            groups[parameter.name] = hint
            parameters.extend(_options(hint))
        else:
            parameters.append(_parameter(parameter.name, hint, parameter.default))

    parameters.sort(key=_stands_last)

    def run(ctx: typer.Context, **values: object) -> object:
        root = ctx.find_root().obj
        for name, kind in groups.items():
            own = {field.name: values.pop(field.name) for field in dataclasses.fields(kind)}
            made = kind(**own)
            inherits = isinstance(made, Output) and isinstance(root, Output)
            values[name] = made.under(root) if inherits else made
        if "ctx" in asked:
            values["ctx"] = ctx
        return function(**values)

    run.__name__, run.__doc__ = function.__name__, function.__doc__
    run.__dict__["__signature__"] = inspect.Signature(parameters)
    return run


def _options(kind: type[Any]) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
        yield _parameter(field.name, hints[field.name], default)


def _parameter(name: str, hint: object, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=hint, default=default)


def _stands_last(parameter: inspect.Parameter) -> bool:
    """Whether it is one of the options that every command has, which help shows at the end."""
    said = getattr(parameter.annotation, "__metadata__", ())
    return any(getattr(item, "rich_help_panel", None) == EVERYWHERE for item in said)
