"""What every verification shares: the public key, which version signed, and whether that counts.

The order is fixed: first the signature, then the state of the version. So ``SignedByCompromised``
always means that the signature is arithmetically right (I3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from keystead import limits
from keystead.crypto import signatures as primitives
from keystead.crypto.public import spki_from_pem
from keystead.encoding import canonical_json, strict_json
from keystead.errors import (
    MalformedRequest,
    PurposeMismatch,
    SignatureInvalid,
    SignedByCompromised,
)
from keystead.keys.algorithms import algorithm_named
from keystead.keys.commands import VersionInfo
from keystead.keys.lifecycle import State
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.model import VerifierRule

__all__ = [
    "DOCUMENT_BYTES_MAX",
    "Hex256",
    "PublicKey",
    "Verified",
    "before_compromise",
    "check_named",
    "check_purpose",
    "check_signatures",
    "check_state",
    "one_is_enough",
    "parse_document",
    "version_of_kid",
]

DOCUMENT_BYTES_MAX = 16 * 1024
"""A signed manifest or ledger document: some hundred bytes, and room for later formats."""

Hex256 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
"""A SHA-256 digest as documents write it."""

_COUNTS = frozenset({State.ACTIVE, State.SUSPENDED, State.DEACTIVATED, State.DESTROYED})
"""States in which what a version signed still verifies (NIST SP 800-57 Part 1, 7.2 to 7.4)."""


class PublicKey(msgspec.Struct, frozen=True, kw_only=True):
    """What ``GET /v1/keys/{name}/public`` says of a key; ``id`` is checked where it is known.

    ``rules``: of which dual versions one good signature is enough, and until when.
    """

    name: str
    purpose: str
    versions: tuple[VersionInfo, ...]
    tenant: str = ""
    primary: int = 0
    id: str = ""
    rules: tuple[VerifierRule, ...] = ()


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """Which version signed, and the state it is in by the :class:`PublicKey` that was given.

    ``components``: whose signatures were verified, and hold: all of the algorithm's, unless a rule
    of the key says that one is enough.
    """

    key: str
    version: int
    kid: str
    algorithm: str
    state: str
    components: tuple[str, ...]


_S = TypeVar("_S", bound=msgspec.Struct)


def check_purpose(key: PublicKey, purpose: Purpose) -> None:
    """A key verifies artefacts of its own purpose only, as it signs no others (I1).

    Raises:
        PurposeMismatch: it is a key for something else.
    """
    if key.purpose != purpose:
        raise PurposeMismatch(
            f"expected a {purpose!s} key to verify with, met {key.name}, which is for"
            f" {key.purpose}",
            hint="Fetch the public part of the key that signed",
        )


def version_of_kid(key: PublicKey, kid: str) -> VersionInfo:
    """The version that an artefact names as its signer.

    Raises:
        SignatureInvalid: the key has no such version.
    """
    for version in key.versions:
        if version.kid == kid:
            return version
    raise SignatureInvalid(
        f"the signer names itself {kid[:64]!r}; key {key.name} has no version of that id",
        hint="A version may be newer than this copy of the public key: fetch it again",
    )


def one_is_enough(key: PublicKey, version: VersionInfo, now_ms: int | None) -> bool:
    """Whether one good signature of a version is enough: the rule ``any``, until its time is over.

    ``now_ms``: Unix milliseconds; None: unknown, so that no time is known to be left.
    """
    return now_ms is not None and any(
        rule.version == version.number and now_ms < rule.until_ms for rule in key.rules
    )


def check_signatures(
    version: VersionInfo, message: bytes, signatures: Mapping[str, bytes], *, one: bool = False
) -> tuple[str, ...]:
    """The components whose signatures hold: all of the version's, the rule ``both`` of a dual key.

    ``signatures``: component name to raw signature, ECDSA as DER (RFC 3279). ``one``: the rule
    ``any``: the others may be missing, or not verify here, but none may be another's.

    Raises:
        SignatureInvalid: a component is missing, is not the version's, or does not verify.
        MalformedRequest: the version's public part does not parse.
    """
    components = algorithm_named(version.algorithm).components
    given = set(signatures)
    if given != set(components) and not (one and given and given <= set(components)):
        raise SignatureInvalid(
            f"expected signatures by {' or '.join(components) if one else ', '.join(components)},"
            f" met {', '.join(sorted(name[:64] for name in signatures)) or 'none'}",
            hint="Each algorithm of the version signs; a signature was left out, or added",
        )
    if len(version.public_pem) != len(components):
        raise MalformedRequest(
            f"expected {len(components)} public keys in version {version.number},"
            f" met {len(version.public_pem)}"
        )
    held: list[str] = []
    failures: list[SignatureInvalid | MalformedRequest] = []
    for component, text in zip(components, version.public_pem, strict=True):
        if component in given:
            try:
                primitives.verify(component, spki_from_pem(text), message, signatures[component])
                held.append(component)
            except (SignatureInvalid, MalformedRequest) as exc:  # it may be unknown to this machine
                failures.append(exc)
    if failures and not (one and held):
        raise failures[0]
    return tuple(held)


def check_named(
    version: VersionInfo,
    algorithms: tuple[str, ...],
    signatures: Mapping[str, bytes],
    *,
    one: bool = False,
) -> None:
    """The algorithms that a signed document names are those that signed it, each once.

    ``one``: they are all those of the version, whichever of them the verifier was given.

    Raises:
        SignatureInvalid: a signature was stripped or added after signing, or a name before.
    """
    due = algorithm_named(version.algorithm).components if one else tuple(signatures)
    if sorted(algorithms) != sorted(due):
        raise SignatureInvalid(
            f"the document says that {', '.join(algorithms)[:128]} sign it,"
            f" {'expected' if one else 'met'} {', '.join(sorted(due))[:128] or 'no signature'}",
            hint="A signature was stripped or added after signing",
        )


def check_state(key: PublicKey, version: VersionInfo, components: tuple[str, ...]) -> Verified:
    """Whether a right signature of the version counts; called after the signature was checked.

    ``components``: as :func:`check_signatures` gives them.

    Raises:
        SignedByCompromised: the version's key is known to be lost.
        SignatureInvalid: the version has not been activated. A destroyed one's signatures count
            if it was not compromised before (SP 800-57 Part 1 Rev. 5, sections 7.5 and 7.6).
    """
    if version.state == State.COMPROMISED or version.compromised_epoch:
        since = f" since epoch {version.compromised_epoch}" * bool(version.compromised_epoch)
        raise SignedByCompromised(
            f"version {version.number} of {key.name} is compromised{since}: anyone may have signed"
            " this",
            hint="Trust it only if a record of the log shows that it was signed before the loss",
            version=version.number,
            compromised_epoch=version.compromised_epoch,
        )
    if version.state not in _COUNTS:
        raise SignatureInvalid(
            f"version {version.number} of {key.name} is {version.state[:32]}; signatures count of"
            f" versions that are {', '.join(sorted(_COUNTS))}"
        )
    return Verified(
        key=key.name,
        version=version.number,
        kid=version.kid,
        algorithm=version.algorithm,
        state=version.state,
        components=components,
    )


def before_compromise(key: PublicKey, number: int) -> PublicKey:
    """The public part as it was before a version was compromised, to see whether all else holds.

    What verifies under it is worth nothing by itself: only a record of the log, from before the
    compromise, says that the version made it while it was the vault's alone.
    """
    return msgspec.structs.replace(
        key,
        versions=tuple(
            msgspec.structs.replace(v, state=str(State.DEACTIVATED), compromised_epoch=0)
            if v.number == number
            else v
            for v in key.versions
        ),
    )


def parse_document(document: bytes, form: type[_S]) -> _S:
    """Read a signed document; it must be in canonical JSON (RFC 8785), so that it has one spelling.

    Raises:
        MalformedRequest: too long, not JSON, not canonical, or not the members of ``form``.
    """
    if len(document) > DOCUMENT_BYTES_MAX:
        raise MalformedRequest(
            f"expected a document of at most {DOCUMENT_BYTES_MAX} bytes, met {len(document)}"
        )
    value: Any = strict_json(document, depth_max=limits.JSON_DEPTH_MAX)
    try:
        canonical = canonical_json(value)
        parsed = msgspec.convert(value, form)
    except (
        TypeError,
        ValueError,
    ) as exc:  # msgspec.ValidationError is a ValueError; lone surrogates
        raise MalformedRequest(
            f"expected a {form.__name__.strip('_').lower()} document, met other members"
        ) from exc
    if canonical != document:
        raise MalformedRequest("expected canonical JSON (RFC 8785), met another spelling")
    return parsed
