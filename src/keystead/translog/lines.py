"""What C2SP's line formats share: base64, decimals and hash lines, with one way to write each.

Standard base64 with padding (RFC 4648 section 4), decimals without leading zeros. A reader that is
lenient about either would take two files for one proof.
"""

from __future__ import annotations

import base64
import binascii
import re

from keystead.errors import MalformedRequest

__all__ = [
    "HASH_BYTES",
    "b64_decode",
    "b64_encode",
    "decimal",
    "decode_text",
    "hash_line",
    "quoted",
]

HASH_BYTES = 32
"""SHA-256, the hash of every tree here (tlog-tiles, "APIs")."""
_QUOTED_CHARS = 40
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


def b64_encode(data: bytes) -> str:
    """Standard base64 with padding."""
    return base64.b64encode(data).decode("ascii")


def b64_decode(text: str, what: str) -> bytes:
    """The bytes of standard base64; refuses anything that does not encode back to itself.

    Raises:
        MalformedRequest: other characters, missing padding, or unused bits that are not zero.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:  # ValueError: text that is not ASCII
        raise MalformedRequest(f"expected {what} in base64, met {quoted(text)}") from exc
    if b64_encode(data) != text:
        raise MalformedRequest(f"expected {what} in canonical base64, met {quoted(text)}")
    return data


def decimal(text: str, most: int, what: str) -> int:
    """A number from 0 to ``most`` in ASCII digits, with no leading zeros.

    Raises:
        MalformedRequest: written otherwise, or greater.
    """
    if len(text) > len(str(most)) or not (text.isascii() and text.isdigit()):
        raise MalformedRequest(f"expected {what} from 0 to {most}, met {quoted(text)}")
    value = int(text)
    if str(value) != text or value > most:
        raise MalformedRequest(
            f"expected {what} from 0 to {most} without leading zeros, met {quoted(text)}"
        )
    return value


def hash_line(text: str, what: str) -> bytes:
    """The 32 bytes of a base64 SHA-256 hash.

    Raises:
        MalformedRequest: not base64, or another length.
    """
    data = b64_decode(text, what)
    if len(data) != HASH_BYTES:
        raise MalformedRequest(f"expected {what} of {HASH_BYTES} bytes, met {len(data)}")
    return data


def decode_text(data: bytes | str, bytes_max: int, what: str) -> str:
    """UTF-8 text of at most so many bytes, with no control characters but newlines (signed-note).

    Raises:
        MalformedRequest: longer, not UTF-8, or with a control character.
    """
    if len(data) > bytes_max:
        raise MalformedRequest(f"expected {what} of at most {bytes_max} bytes, met {len(data)}")
    try:
        raw = data.encode() if isinstance(data, str) else data
        text = raw.decode()
    except UnicodeError as exc:
        raise MalformedRequest(f"expected {what} in UTF-8") from exc
    if len(raw) > bytes_max:
        raise MalformedRequest(f"expected {what} of at most {bytes_max} bytes, met {len(raw)}")
    if found := _CONTROL.search(text):
        raise MalformedRequest(
            f"expected no control character but newlines in {what}, met U+{ord(found[0]):04X}"
        )
    return text


def quoted(text: str) -> str:
    """The text as a message may show it: escaped, and short."""
    cut = text if len(text) <= _QUOTED_CHARS else text[:_QUOTED_CHARS] + "..."
    return ascii(cut)
