"""OpenSSH key revocation lists (OpenSSH PROTOCOL.krl): the one kind of section that is needed here.

A list that names an authority's own key revokes every certificate which that key signed: ssh, sshd
and ssh-keygen look up the signer of a certificate, too.
"""

from __future__ import annotations

from collections.abc import Iterable

from keystead.crypto.ssh import public_key_blob, wire_string, wire_strings

__all__ = ["key_revocation_list"]

_MAGIC = b"SSHKRL\n\0"
_FORMAT_VERSION = 1
_SECTION_EXPLICIT_KEY = 2


def key_revocation_list(
    publics: Iterable[bytes], *, version: int, generated_s: int, comment: str = ""
) -> bytes:
    """A list that revokes these keys, and all that they signed.

    ``publics``: DER SubjectPublicKeyInfo each. ``version``: grows with every list; ``generated_s``:
    Unix seconds, for people only. Keys stand sorted, so that one set of them has one list.

    Raises:
        MalformedRequest: a kind of key that SSH authorities here do not have.
    """
    blobs = sorted({public_key_blob(spki) for spki in publics})
    head = (
        _MAGIC
        + _FORMAT_VERSION.to_bytes(4, "big")
        + version.to_bytes(8, "big")
        + generated_s.to_bytes(8, "big")
        + bytes(8)  # flags: none is defined
        + wire_strings(b"", comment)  # reserved, comment
    )
    if not blobs:
        return head
    return head + bytes([_SECTION_EXPLICIT_KEY]) + wire_string(wire_strings(*blobs))
