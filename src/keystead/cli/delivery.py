"""Where a result goes: its artefact to a file or stdout; with ``--json`` one document about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from keystead.cli.files import STDIN_OR_STDOUT, destination
from keystead.cli.options import Output
from keystead.cli.show import print_json

__all__ = ["Deliver", "delivery"]

Deliver = Callable[..., None]


@contextmanager
def delivery(output: Output, out: Path | None, *, private: bool = False) -> Iterator[Deliver]:
    """Make the place for an artefact, before the node is asked; gives a function that fills it.

    That takes the artefact's bytes, a document of what is told about it, and as ``content`` what
    the document holds of the artefact itself, if the artefact went to no file.

    Raises:
        BadParameter: nothing can be written there.
    """
    path = None if out == STDIN_OR_STDOUT else out
    documents: list[Mapping[str, object]] = []
    with destination(path, private=private) as write:

        def deliver(
            artefact: bytes,
            document: Mapping[str, object],
            *,
            content: Mapping[str, object] | None = None,
        ) -> None:
            if path is not None or not output.as_json:
                write(artefact)
            documents.append(
                {**document, **(content or {})} if path is None else {**document, "out": str(path)}
            )

        yield deliver
    if output.as_json:
        for document in documents:
            print_json(document)
