"""The text of a checkpoint: a log's origin, its size, its root (C2SP tlog-checkpoint)."""

from __future__ import annotations

import msgspec

from keystead.errors import MalformedRequest
from keystead.limits import (
    CHECKPOINT_EXTENSIONS_MAX,
    LOG_SIZE_MAX,
    NOTE_BYTES_MAX,
    NOTE_KEY_NAME_BYTES_MAX,
)
from keystead.translog.lines import b64_encode, decimal, decode_text, hash_line

__all__ = ["Checkpoint", "parse_checkpoint"]

_LINES = 3


class Checkpoint(msgspec.Struct, frozen=True):
    """A tree head; ``root`` is 32 bytes, ``extensions`` are opaque: no witness speaks for them."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def encode(self) -> str:
        """The note text, which ends in a newline.

        Raises:
            MalformedRequest: it would not read back: what must never be signed.
        """
        lines = (self.origin, str(self.size), b64_encode(self.root), *self.extensions)
        text = "".join(f"{line}\n" for line in lines)
        if parse_checkpoint(text) != self:
            raise MalformedRequest("expected an origin and extensions of one line each")
        return text


def parse_checkpoint(text: str) -> Checkpoint:
    """The tree head in a note's text.

    Raises:
        MalformedRequest: fewer than three lines, an empty or a bad one, or too many.
    """
    decode_text(text, NOTE_BYTES_MAX, "a checkpoint")
    lines = text.split("\n", _LINES + CHECKPOINT_EXTENSIONS_MAX)
    if lines[-1]:
        raise MalformedRequest(
            f"expected a checkpoint of at most {CHECKPOINT_EXTENSIONS_MAX} extension lines, each"
            " line with its newline"
        )
    lines.pop()
    if len(lines) < _LINES or not all(lines):
        raise MalformedRequest(
            f"expected {_LINES} lines in a checkpoint (origin, size, root) and no empty one"
        )
    origin, size_text, root_text, *extensions = lines
    decode_text(origin, NOTE_KEY_NAME_BYTES_MAX, "a checkpoint's origin")
    size = decimal(size_text, LOG_SIZE_MAX, "a checkpoint's size")
    root = hash_line(root_text, "a checkpoint's root")
    return Checkpoint(origin, size, root, tuple(extensions))
