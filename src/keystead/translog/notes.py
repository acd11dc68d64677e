"""Signed notes and verifier keys (C2SP signed-note): text, and who has signed it.

Three types of key are known: Ed25519 over the text itself (0x01), and the two timestamped
cosignatures of tlog-cosignature (0x04, 0x06), which :mod:`keystead.translog.cosignatures` makes and
checks. Type 0x02 is left out: its key id is computed otherwise, and no log here uses it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import msgspec

from keystead.crypto.public import ed25519_spki, mldsa44_spki
from keystead.crypto.signatures import verify
from keystead.errors import MalformedRequest, SignatureInvalid
from keystead.limits import NOTE_BYTES_MAX, NOTE_KEY_NAME_BYTES_MAX, NOTE_SIGNATURES_MAX
from keystead.translog.lines import b64_decode, b64_encode, decode_text, quoted

__all__ = [
    "ED25519",
    "ED25519_COSIGNATURE",
    "MLDSA44_COSIGNATURE",
    "Note",
    "Signature",
    "VerifierKey",
    "check_signature",
    "encode_note",
    "encode_signature",
    "parse_note",
    "parse_signatures",
    "parse_vkey",
    "sign_note",
    "signatures_by",
    "verify_note",
    "vkey_of",
]

ED25519 = 0x01
ED25519_COSIGNATURE = 0x04
MLDSA44_COSIGNATURE = 0x06
_PUBLIC_BYTES = {ED25519: 32, ED25519_COSIGNATURE: 32, MLDSA44_COSIGNATURE: 1312}
_KEY_ID_BYTES = 4
_DASH = "\u2014 "  # signed-note, "Format": em dash and space
_VKEY_CHARS_MAX = NOTE_KEY_NAME_BYTES_MAX + 10 + 4 * (1 + 1312 + 2) // 3
_VKEY_PARTS = 3


class VerifierKey(msgspec.Struct, frozen=True):
    """A public key that notes are verified with; make one by :func:`vkey_of`, which sets its id.

    ``key_id``: 4 bytes of a hash over the rest: a name for the key, no proof of it.
    ``algorithm``: signed-note's signature type. ``public``: the raw public key.
    """

    name: str
    key_id: bytes
    algorithm: int
    public: bytes

    def encode(self) -> str:
        """The text that others configure: ``name+id+key`` (signed-note, "Verifier keys")."""
        material = b64_encode(bytes([self.algorithm]) + self.public)
        return f"{self.name}+{self.key_id.hex()}+{material}"


class Signature(msgspec.Struct, frozen=True):
    """One signature line: ``data`` is what follows the key id."""

    name: str
    key_id: bytes
    data: bytes


class Note(msgspec.Struct, frozen=True):
    """A text that ends in a newline, and its signatures, of which nothing is checked yet."""

    text: str
    signatures: tuple[Signature, ...]


def vkey_of(name: str, algorithm: int, public: bytes) -> VerifierKey:
    """The verifier key of a raw public key: 32 bytes of Ed25519, 1,312 of ML-DSA-44.

    Raises:
        MalformedRequest: the name, the type or the key's length is none that is known.
    """
    _check_name(name)
    if algorithm not in _PUBLIC_BYTES:
        known = ", ".join(f"0x{item:02x}" for item in _PUBLIC_BYTES)
        raise MalformedRequest(f"expected a note key of type {known}, met 0x{algorithm:02x}")
    if len(public) != _PUBLIC_BYTES[algorithm]:
        raise MalformedRequest(
            f"expected {_PUBLIC_BYTES[algorithm]} bytes in a public key of type"
            f" 0x{algorithm:02x}, met {len(public)}"
        )
    hashed = hashlib.sha256(name.encode() + b"\n" + bytes([algorithm]) + public)
    return VerifierKey(name, hashed.digest()[:_KEY_ID_BYTES], algorithm, public)


def parse_vkey(text: str) -> VerifierKey:
    """The key of a vkey text.

    Raises:
        MalformedRequest: another form, a type that is not known, or an id that is not the key's.
    """
    decode_text(text, _VKEY_CHARS_MAX, "a verifier key")
    parts = text.split("+", _VKEY_PARTS - 1)  # the base64 may hold a plus, the name may not
    if len(parts) != _VKEY_PARTS:
        raise MalformedRequest(f"expected a verifier key name+id+key, met {quoted(text)}")
    name, key_id, material = parts
    raw = b64_decode(material, "the key of a verifier key")
    if not raw:
        raise MalformedRequest("expected a signature type and a key in a verifier key, met nothing")
    key = vkey_of(name, raw[0], raw[1:])
    if key.key_id.hex() != key_id:
        raise MalformedRequest(
            f"expected the id {key.key_id.hex()} in the verifier key of {quoted(name)}, met"
            f" {quoted(key_id)}",
            hint="a character was lost or changed: copy the key again",
        )
    return key


def _check_name(name: str) -> None:
    size = len(decode_text(name, NOTE_KEY_NAME_BYTES_MAX, "a note key's name"))
    if size == 0 or "+" in name or any(char.isspace() for char in name):
        raise MalformedRequest(
            f"expected a note key's name without spaces and plus signs, met {quoted(name)}"
        )


def parse_note(data: bytes | str) -> Note:
    """A note's text and signatures.

    Raises:
        MalformedRequest: too long, not of signed-note's format, or with too many signatures.
    """
    whole = decode_text(data, NOTE_BYTES_MAX, "a signed note")
    end = whole.rfind("\n\n")  # the last empty line: the text may have others
    if end < 0:
        raise MalformedRequest("expected a text, an empty line and signatures in a note")
    return Note(whole[: end + 1], parse_signatures(whole[end + 2 :]))


def parse_signatures(text: str) -> tuple[Signature, ...]:
    """Signature lines, each with its newline: the end of a note, or what a witness answers.

    Raises:
        MalformedRequest: none, too many, or a line of another form.
    """
    decode_text(text, NOTE_BYTES_MAX, "signature lines")
    lines = text.split("\n", NOTE_SIGNATURES_MAX + 1)
    if len(lines) > NOTE_SIGNATURES_MAX + 1:
        raise MalformedRequest(f"expected at most {NOTE_SIGNATURES_MAX} signatures in a note")
    if lines[-1] or len(lines) == 1:
        raise MalformedRequest("expected signature lines that end in newlines")
    return tuple(_parse_signature(line) for line in lines[:-1])


def _parse_signature(line: str) -> Signature:
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    if not (line.startswith(_DASH) and space):
        raise MalformedRequest(
            f"expected a signature line of em dash, name and base64, met {quoted(line)}"
        )
    _check_name(name)
    raw = b64_decode(encoded, "a note's signature")
    if len(raw) <= _KEY_ID_BYTES:
        raise MalformedRequest(
            f"expected a key id and a signature in a note's signature, met {len(raw)} bytes"
        )
    return Signature(name, raw[:_KEY_ID_BYTES], raw[_KEY_ID_BYTES:])


def encode_signature(signature: Signature) -> str:
    """The signature's line, with its newline."""
    return f"{_DASH}{signature.name} {b64_encode(signature.key_id + signature.data)}\n"


def encode_note(note: Note) -> bytes:
    """The note as it is stored and sent.

    Raises:
        MalformedRequest: it would not read back: what a signer must never put its name to.
    """
    data = (note.text + "\n" + "".join(map(encode_signature, note.signatures))).encode()
    if parse_note(data) != note:
        raise MalformedRequest("expected a note's text to end in a newline")
    return data


def sign_note(text: str, key: VerifierKey, sign: Callable[[bytes], bytes]) -> Signature:
    """An Ed25519 signature over a note's text; ``sign`` is the private part of ``key``.

    Raises:
        MalformedRequest: the key is a cosigner's, which signs another message.
    """
    if key.algorithm != ED25519:
        raise MalformedRequest(
            f"expected a note key of type 0x01, met 0x{key.algorithm:02x}",
            hint="keys of types 0x04 and 0x06 sign checkpoints, by cosign",
        )
    return Signature(key.name, key.key_id, sign(text.encode()))


def signatures_by(note: Note, key: VerifierKey) -> tuple[Signature, ...]:
    """The lines that claim to be this key's: both its name and its id."""
    return tuple(
        item for item in note.signatures if item.name == key.name and item.key_id == key.key_id
    )


def verify_note(note: Note, keys: Iterable[VerifierKey]) -> tuple[VerifierKey, ...]:
    """Those of the keys, of type 0x01, that have signed the note: one at least. Others are ignored.

    Raises:
        SignatureInvalid: a known key's signature does not verify, or no known key has signed.
        MalformedRequest: a key of another type.
    """
    known = tuple(keys)
    signed = tuple(key for key in known if _has_signed(note, key))
    if not signed:
        names = ", ".join(f"{key.name} ({key.key_id.hex()})" for key in known) or "nobody"
        raise SignatureInvalid(
            f"expected a note signed by {names}, met signatures by"
            f" {', '.join(f'{item.name} ({item.key_id.hex()})' for item in note.signatures)}",
            hint="get the verifier key of the log that the note is from",
        )
    return signed


def _has_signed(note: Note, key: VerifierKey) -> bool:
    if key.algorithm != ED25519:
        raise MalformedRequest(
            f"expected a note key of type 0x01, met 0x{key.algorithm:02x}",
            hint="cosignatures, types 0x04 and 0x06, are checked by verify_cosignature",
        )
    mine = signatures_by(note, key)
    for item in mine:
        check_signature(key, note.text.encode(), item.data)
    return bool(mine)


def check_signature(key: VerifierKey, message: bytes, signature: bytes) -> None:
    """Check a raw signature of the key over the message, which its type makes out of a note.

    Raises:
        SignatureInvalid: it does not verify.
    """
    component = "ml-dsa-44" if key.algorithm == MLDSA44_COSIGNATURE else "ed25519"
    spki = mldsa44_spki(key.public) if component == "ml-dsa-44" else ed25519_spki(key.public)
    try:
        verify(component, spki, message, signature)
    except SignatureInvalid as exc:
        raise SignatureInvalid(
            f"the signature of {key.name} ({key.key_id.hex()}) does not verify over this note",
            hint="the note was changed, or is not theirs: do not use it",
        ) from exc
