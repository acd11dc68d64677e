"""Options that commands share: where the node is, who asks, and what every use of a key takes.

A secret never stands on the command line, where every process of the machine can read it: tokens,
handles and proof keys come from files, or from the environment.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer

from keystead.cli.files import read_bytes, read_text
from keystead.errors import MalformedRequest
from keystead.keys.handles import Handle, parse

if TYPE_CHECKING:
    from keystead.client import Bound, Client
    from keystead.client.operations import UseOptions

__all__ = ["DEFAULT_URL", "EVERYWHERE", "Common", "Holder", "Operator", "Output", "User"]

DEFAULT_URL = "http://127.0.0.1:7410"
EVERYWHERE = "Everywhere"
"""Title of the options that stand last in every help."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """What every command takes, before its name or after it."""

    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON document on stdout.", rich_help_panel=EVERYWHERE),
    ] = False

    def under(self, root: Output) -> Self:
        """These options, with the root's where they are not given."""
        return replace(self, as_json=self.as_json or root.as_json)


@dataclass(frozen=True, kw_only=True)
class Common(Output):
    """What every command takes that asks a node."""

    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help=f"The node: https://host:port, unix:/path, or http:// on this machine; several"
            f" fronts with commas between; else KEYSTEAD_URL, else {DEFAULT_URL}.",
            rich_help_panel=EVERYWHERE,
        ),
    ] = None

    def under(self, root: Output) -> Self:
        """These options, with the root's where they are not given."""
        url = self.url or (root.url if isinstance(root, Common) else None)
        return replace(super().under(root), url=url)

    @property
    def address(self) -> str:
        """The address of the node, or of several fronts, with commas between."""
        return self.url or os.environ.get("KEYSTEAD_URL") or DEFAULT_URL

    def connect(self) -> Client:
        """A client for what anyone may read."""
        return _client(self.address)


@dataclass(frozen=True, kw_only=True)
class Operator(Common):
    """Who runs an admin command."""

    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The operator's token; else KEYSTEAD_TOKEN, else the file KEYSTEAD_TOKEN_FILE.",
            rich_help_panel=EVERYWHERE,
        ),
    ] = None

    def under(self, root: Output) -> Self:
        """These options, with the root's where they are not given."""
        token_file = self.token_file or (root.token_file if isinstance(root, Operator) else None)
        return replace(super().under(root), token_file=token_file)

    def token(self) -> str:
        """The operator's token.

        Raises:
            BadParameter: none was given, or its file cannot be read.
        """
        given = os.environ.get("KEYSTEAD_TOKEN")
        if self.token_file is None and given:
            return given.strip()
        named = os.environ.get("KEYSTEAD_TOKEN_FILE")
        path = self.token_file or (Path(named) if named else None)
        if path is None:
            raise typer.BadParameter(
                "an operator's token is needed: set KEYSTEAD_TOKEN_FILE or give --token-file;"
                " the node left the token where its first start said",
                param_hint="--token-file",
            )
        return read_text(path, "--token-file").strip()

    def connect(self) -> Client:
        """A client that speaks as the operator."""
        return _client(self.address, operator=self.token())


@dataclass(frozen=True, kw_only=True)
class Holder(Output):
    """Who holds a handle."""

    handle_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The handle's token, - for stdin; else KEYSTEAD_HANDLE. Never an argument.",
        ),
    ] = None

    def handle(self) -> Handle:
        """The handle.

        Raises:
            BadParameter: none was given, or its file cannot be read.
            HandleInvalid: it does not parse.
        """
        given = os.environ.get("KEYSTEAD_HANDLE")
        if self.handle_file is not None:
            return parse(read_text(self.handle_file, "--handle-file").strip())
        if given:
            return parse(given.strip())
        raise typer.BadParameter(
            "a handle is needed: give its file, or set KEYSTEAD_HANDLE", param_hint="--handle-file"
        )


@dataclass(frozen=True, kw_only=True)
class User(Holder, Common):
    """Who uses a key, and what every use takes."""

    context: Annotated[
        str, typer.Option(metavar="PATH", help="The context of the use, such as web/eu/shop.")
    ]
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why, for the record.")] = None
    idempotency_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Repeated under the same key, it is one use."),
    ] = None
    key_version: Annotated[
        int, typer.Option(metavar="N", min=0, help="A version of the key; 0 is its primary.")
    ] = 0
    proof_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Private key (PEM) that a bound handle is bound to: proves it."
        ),
    ] = None
    proof_certificate: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Certificate (PEM) of that key, if bound to one."),
    ] = None

    def connect(self) -> Client:
        """A client that proves possession if a proof key was given."""
        return _client(self.address, bound=self._bound())

    def use(self) -> UseOptions:
        """What the SDK's operations take beside what is their own."""
        return {
            "context": self.context,
            "reason": self.reason,
            "idempotency_key": self.idempotency_key,
            "key_version": self.key_version,
        }

    def _bound(self) -> Bound | None:
        if self.proof_key is None:
            if self.proof_certificate is not None:
                raise typer.BadParameter(
                    "goes with its --proof-key", param_hint="--proof-certificate"
                )
            return None
        from keystead.cli.proofs import load_bound  # noqa: PLC0415  few commands load a proof key

        certificate = self.proof_certificate
        return load_bound(
            read_bytes(self.proof_key, "--proof-key"),
            None if certificate is None else read_bytes(certificate, "--proof-certificate"),
        )


def _client(url: str, *, operator: str | None = None, bound: Bound | None = None) -> Client:
    from keystead.client import Client  # noqa: PLC0415  what works offline loads no HTTP client

    try:
        return Client(url, operator=operator, bound=bound)
    except MalformedRequest as exc:  # nothing has been asked yet: it is what was typed
        hint = "--url" if operator is None else "--url or --token-file"
        raise typer.BadParameter(str(exc), param_hint=hint) from exc
