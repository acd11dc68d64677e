"""What the log says of itself beside its tree: its key and its policy, which prove nothing."""

from __future__ import annotations

from collections.abc import Iterator

from keystead.errors import MalformedRequest, QuorumMissing, SignatureInvalid
from keystead.fsck.files import CHECKPOINT, POLICY, VKEY, Files
from keystead.fsck.findings import Finding, differs
from keystead.translog.notes import VerifierKey, parse_note, parse_vkey
from keystead.translog.policy import WitnessPolicy, parse_policy

__all__ = ["check_policy", "read_key"]

_GIVEN = "the one you gave"
_OWN = "the log's own word, out of its file vkey: pin it with --key"
_NONE = "none: no signature was checked"
_OTHER = "the file was altered, or is another log's"


def read_key(
    files: Files, given: VerifierKey | None
) -> tuple[VerifierKey | None, str, list[Finding]]:
    """The key to hold signatures to, whose word it is, and what is wrong with its file."""
    key, findings = given, []
    data = files.read(VKEY)
    if data is None:
        if files.read(CHECKPOINT) is not None:
            findings.append(Finding(VKEY, "the log's key", "no file", "it was removed"))
        return key, _NONE if key is None else _GIVEN, findings
    try:
        own = parse_vkey(data.decode().removesuffix("\n"))
    except (MalformedRequest, UnicodeDecodeError) as exc:
        findings.append(Finding(VKEY, "a verifier key", str(exc), _OTHER))
        return key, _NONE if key is None else _GIVEN, findings
    key = own if given is None else given
    if f"{key.encode()}\n".encode() != data:
        findings.append(differs(VKEY, key.encode(), data.decode(), _OTHER))
    return key, _OWN if given is None else _GIVEN, findings


def check_policy(files: Files, key: VerifierKey | None) -> Iterator[Finding | str]:
    """What is wrong with the policy, or by it with the published checkpoint; text is a note.

    The policy names the witnesses, so their cosignatures are held to what is read there.
    """
    data, published = files.read(POLICY), files.read(CHECKPOINT)
    if published is None:
        return
    if data is None:
        yield Finding(POLICY, "the log's policy", "no file", "it was removed")
        return
    try:
        policy = parse_policy(data)
    except MalformedRequest as exc:
        yield Finding(POLICY, "a trust policy", exc.message, _OTHER)
        return
    logs = [item.key for item in policy.logs]
    if policy.encode() != data or key not in (None, *logs) or len(logs) != 1:
        expected = "the log's own" if key is None else key.encode()
        yield differs(POLICY, expected, data.decode(errors="replace"), _OTHER)
        return
    yield from _cosigned(policy, published)


def _cosigned(policy: WitnessPolicy, published: bytes) -> Iterator[Finding | str]:
    try:
        policy.check(parse_note(published))
    except QuorumMissing as exc:
        yield f"the published checkpoint is not cosigned as the policy wants: {exc.message}"
    except SignatureInvalid as exc:
        yield Finding(CHECKPOINT, "good signatures", exc.message, "it is altered, or forged")
    except MalformedRequest:
        return  # what is no note has been found
