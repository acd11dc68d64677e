"""What clients hold: every answer they were given, to be held against storage afterwards."""

from __future__ import annotations

import threading
from typing import Any

import msgspec

from keystead.client import Issued, Receipt, Used
from keystead.keys.commands import KeyInfo
from keystead.keys.framing.data import UnwrapResult, WrapResult
from keystead.keys.framing.firmware import FirmwareResult
from keystead.keys.framing.jwt import JwtResult
from keystead.keys.framing.ledger import LedgerResult

__all__ = ["Answer", "Created", "Held", "Moved", "signed_message"]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One use that was answered. ``message``: what its record commits to, if the client knows."""

    operation: str
    link: str
    idempotency_key: str
    receipt: Receipt
    result: Any
    message: bytes | None


class Created(msgspec.Struct, frozen=True, kw_only=True):
    """A key that was answered as created, and a handle of it that was answered as issued."""

    key: KeyInfo
    issued: Issued


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """A move of a key's version that was answered."""

    key: str
    state: str
    revision: int


class Held:
    """Answers of all clients, in the order in which they came; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: list[Answer] = []
        self._created: list[Created] = []
        self._moved: list[Moved] = []
        self._surprises: list[str] = []

    def used(self, operation: str, link: str, idempotency_key: str, used: Used[Any]) -> None:
        """A use was answered."""
        answer = Answer(
            operation=operation,
            link=link,
            idempotency_key=idempotency_key,
            receipt=used.receipt,
            result=used.result,
            message=signed_message(used.result),
        )
        with self._lock:
            self._answers.append(answer)

    def created(self, created: Created) -> None:
        """A key and its handle were answered."""
        with self._lock:
            self._created.append(created)

    def moved(self, moved: Moved) -> None:
        """A move was answered."""
        with self._lock:
            self._moved.append(moved)

    def surprise(self, what: str) -> None:
        """Something that no crash excuses."""
        with self._lock:
            self._surprises.append(what)

    def answers(self) -> list[Answer]:
        with self._lock:
            return list(self._answers)

    def made(self) -> list[Created]:
        with self._lock:
            return list(self._created)

    def moves(self) -> list[Moved]:
        with self._lock:
            return list(self._moved)

    def surprises(self) -> list[str]:
        with self._lock:
            return list(self._surprises)

    def __len__(self) -> int:
        return len(self._answers)


def signed_message(result: object) -> bytes | None:
    """The bytes a record commits to, read out of the answer itself."""
    match result:
        case JwtResult(token=token):
            return token.rpartition(".")[0].encode()
        case FirmwareResult(manifest=manifest):
            return manifest
        case LedgerResult(document=document):
            return document
        case WrapResult(wrapped=wrapped):
            return wrapped.encode()
        case UnwrapResult():
            return None
        case _:
            raise TypeError(f"no record is known to commit to {type(result).__name__}")
