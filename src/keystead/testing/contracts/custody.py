"""What every custody must do: seal, open and use, each version bound to what it is a version of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import msgspec

from keystead import limits
from keystead.crypto.public import key_id
from keystead.crypto.signatures import verify
from keystead.encoding import b64u_decode, b64u_encode
from keystead.errors import (
    AlgorithmForbidden,
    ContextMismatch,
    CustodyUnavailable,
    MalformedRequest,
    SignatureInvalid,
)
from keystead.keys.algorithms import ALGORITHMS, Kind
from keystead.keys.framing.data import Derive, Mac, decode_wrapped, encode_wrapped
from keystead.keys.lifecycle import State
from keystead.keys.model import Key, Policy, Version
from keystead.keys.purposes import Purpose
from keystead.ports import Custody, OpenKey
from keystead.testing.expect import check_equal, check_raises, check_that

__all__ = ["CustodyBench", "CustodyContract"]

_PURPOSES = {
    **dict.fromkeys(
        (
            "ecdsa-p256-sha256",
            "ecdsa-p384-sha384",
            "ed25519",
            "rsa-pss-2048-sha256",
            "rsa-pss-3072-sha256",
            "ml-dsa-44",
        ),
        Purpose.TLS,
    ),
    "rsa-pkcs1-3072-sha256": Purpose.CA,
    "ml-dsa-65": Purpose.TLS,
    "dual-ecdsa-p256-ml-dsa-65": Purpose.FIRMWARE,
}
_PREHASHED = {
    "ecdsa-p256-sha256": hashlib.sha256,
    "ecdsa-p384-sha384": hashlib.sha384,
    "rsa-pss-2048-sha256": hashlib.sha256,
}
_WRAPPING = ("aes-256-gcm-siv", "hpke-mlkem768-x25519")
_MESSAGE = b"what is signed"
_INFO, _AAD = b"info of a subkey", b"associated data"
_THREADS, _CALLS = 4, 40


class CustodyBench(Protocol):
    """A custody on the test bench, new at the start of each test."""

    @property
    def custody(self) -> Custody:
        """The custody of one deployment."""
        ...

    def restarted(self) -> Custody:
        """The same deployment's custody in another process."""
        ...

    def foreign(self) -> Custody:
        """Another deployment's."""
        ...


class _Made(msgspec.Struct, frozen=True):
    key: Key
    version: Version
    sealed: bytes
    tenant_key: bytes


def _key(algorithm: str) -> Key:
    return Key(
        id="k-1",
        name="one",
        tenant="shop",
        labels={},
        purpose=_PURPOSES.get(algorithm, Purpose.DATA),
        algorithms=(algorithm,),
        prehashed=False,
        policy=Policy(),
        generation=1,
        primary=1,
        versions=(),
        revision=1,
        epoch=1,
        created_ms=1,
    )


def _make(custody: Custody, algorithm: str, number: int = 1) -> _Made:
    key = _key(algorithm)
    tenant_key = custody.new_tenant_key(key.tenant)
    material = custody.generate(key, number, algorithm, tenant_key)
    version = Version(
        number=number,
        state=State.ACTIVE,
        algorithm=algorithm,
        public=material.public,
        kid=key_id(material.public or (key.id.encode(), b"%d" % number)),
        created_ms=1,
    )
    return _Made(key, version, material.sealed, tenant_key)


def _open(custody: Custody, made: _Made) -> OpenKey:
    return custody.open(made.key, made.version, made.sealed, made.tenant_key)


def _check_signs(made: _Made, opened: OpenKey, *, prehashed: bool = False) -> None:
    message = _MESSAGE
    if prehashed:
        message = _PREHASHED[made.version.algorithm](_MESSAGE).digest()
    signatures = opened.sign(message, prehashed=prehashed)
    components = ALGORITHMS[made.version.algorithm].components
    for component, spki, signature in zip(components, made.version.public, signatures, strict=True):
        verify(component, spki, _MESSAGE, signature)
        with check_raises(SignatureInvalid, f"another message under {component}"):
            verify(component, spki, _MESSAGE + b"!", signature)


class CustodyContract:
    """Subclass it and set ``bench`` before each test."""

    bench: CustodyBench
    signing: tuple[str, ...] = tuple(
        name for name, row in ALGORITHMS.items() if row.kind is Kind.SIGNATURE
    )
    """What the custody signs with; one that knows fewer algorithms says so."""

    # --- signing -----------------------------------------------------------------------------

    def test_signatures_verify(self) -> None:
        """Under every algorithm, one raw signature a component, in their order."""
        for algorithm in self.signing:
            made = _make(self.bench.custody, algorithm)
            _check_signs(made, _open(self.bench.custody, made))

    def test_digests_are_signed_as_digests(self) -> None:
        """A prehashed signature is one over the message whose digest it was given."""
        for algorithm in _PREHASHED:
            made = _make(self.bench.custody, algorithm)
            _check_signs(made, _open(self.bench.custody, made), prehashed=True)

    def test_every_version_is_another_key(self) -> None:
        """Nothing is generated twice."""
        made = [_make(self.bench.custody, "ed25519", number) for number in (1, 2, 1)]
        check_equal(len({one.version.public for one in made}), 3, "different public keys")
        check_equal(len({one.sealed for one in made}), 3, "different sealed forms")

    def test_a_signing_key_only_signs(self) -> None:
        """The operations of data keys are refused."""
        opened = _open(self.bench.custody, _make(self.bench.custody, "ed25519"))
        calls: tuple[Callable[[], object], ...] = (
            lambda: opened.wrap(b"x", _INFO, _AAD),
            lambda: opened.unwrap("ksw1.", _INFO, _AAD),
            lambda: opened.derive(Derive(), _INFO),
            lambda: opened.mac(Mac(message=b"x"), _INFO),
        )
        for call in calls:
            with check_raises(AlgorithmForbidden, "an operation of a data key"):
                call()

    # --- what material is bound to -----------------------------------------------------------

    def test_material_opens_in_another_process(self) -> None:
        """What is sealed opens after a restart, and is the same key."""
        made = _make(self.bench.custody, "ed25519")
        _check_signs(made, _open(self.bench.restarted(), made))
        data = _make(self.bench.custody, "aes-256-gcm-siv")
        wrapped = _open(self.bench.custody, data).wrap(b"plain", _INFO, _AAD).wrapped
        plain = _open(self.bench.restarted(), data).unwrap(wrapped, _INFO, _AAD).plaintext
        check_equal(plain, b"plain", "what was wrapped before the restart")

    def test_moved_material_does_not_open(self) -> None:
        """Bound to key id, version, purpose, algorithm and tenant: a moved row is refused."""
        made = _make(self.bench.custody, "ecdsa-p256-sha256")
        replace = msgspec.structs.replace
        other_tenant = self.bench.custody.new_tenant_key("bank")
        moved = (
            replace(made, key=replace(made.key, id="k-2")),
            replace(made, key=replace(made.key, purpose=Purpose.CA)),
            replace(made, key=replace(made.key, tenant="bank")),
            replace(made, version=replace(made.version, number=2)),
            replace(made, version=replace(made.version, algorithm="ed25519")),
            replace(made, key=replace(made.key, tenant="bank"), tenant_key=other_tenant),
            replace(made, tenant_key=other_tenant),
            replace(made, tenant_key=self.bench.custody.new_tenant_key("shop")),
        )
        for one in moved:
            with check_raises(CustodyUnavailable, "material that was moved"):
                _open(self.bench.custody, one)
        _check_signs(made, _open(self.bench.custody, made))

    def test_damaged_material_does_not_open(self) -> None:
        """Altered anywhere, cut off anywhere, or empty."""
        made = _make(self.bench.custody, "ed25519")
        size = len(made.sealed)
        damaged = [made.sealed[:at] for at in (0, 1, 12, 28, size // 2, size - 1)]
        damaged += [made.sealed + b"\0"]
        for at in (0, 11, 12, size // 2, size - 17, size - 1):
            altered = bytearray(made.sealed)
            altered[at] ^= 1
            damaged.append(bytes(altered))
        for sealed in damaged:
            with check_raises(CustodyUnavailable, f"damaged material of {len(sealed)} bytes"):
                _open(self.bench.custody, msgspec.structs.replace(made, sealed=sealed))

    def test_another_deployment_opens_nothing(self) -> None:
        """A copied row is of no use elsewhere."""
        made = _make(self.bench.custody, "ed25519")
        with check_raises(CustodyUnavailable, "another deployment's custody"):
            _open(self.bench.foreign(), made)

    def test_nothing_is_made_under_a_tenant_key_that_does_not_open(self) -> None:
        """Generation needs the tenant's key."""
        custody = self.bench.custody
        for tenant_key in (b"", b"x" * 60, custody.new_tenant_key("bank")):
            with check_raises(CustodyUnavailable, "generation"):
                custody.generate(_key("ed25519"), 1, "ed25519", tenant_key)

    # --- data keys ---------------------------------------------------------------------------

    def test_what_is_wrapped_unwraps(self) -> None:
        """Any length, and never the same twice."""
        for algorithm in _WRAPPING:
            opened = _open(self.bench.custody, _make(self.bench.custody, algorithm))
            for plain in (b"", b"x", bytes(range(256)) * 16):
                wrapped = [opened.wrap(plain, _INFO, _AAD).wrapped for _ in range(2)]
                check_that(wrapped[0] != wrapped[1], "a nonce of its own each time")
                for text in wrapped:
                    found = opened.unwrap(text, _INFO, _AAD).plaintext
                    check_equal(found, plain, f"{algorithm}, {len(plain)} bytes")

    def test_another_context_does_not_unwrap(self) -> None:
        """Neither under another subkey, nor with other associated data, nor under another key."""
        for algorithm in _WRAPPING:
            made = _make(self.bench.custody, algorithm)
            opened = _open(self.bench.custody, made)
            wrapped = opened.wrap(b"plain", _INFO, _AAD).wrapped
            other = _open(self.bench.custody, _make(self.bench.custody, algorithm))
            for key, info, aad in (
                (opened, _INFO + b"!", _AAD),
                (opened, _INFO, _AAD + b"!"),
                (other, _INFO, _AAD),
            ):
                with check_raises(ContextMismatch, f"{algorithm} in another context"):
                    key.unwrap(wrapped, info, aad)

    def test_altered_wrappings_do_not_unwrap(self) -> None:
        """No part of what is wrapped can be altered: neither ciphertext nor what it names."""
        for algorithm in _WRAPPING:
            opened = _open(self.bench.custody, _make(self.bench.custody, algorithm))
            whole = decode_wrapped(opened.wrap(b"plain", _INFO, _AAD).wrapped)
            ciphertext = whole.ciphertext
            for changes in (
                {"kid": "other"},
                {"version": whole.version + 1},
                {"nonce": b"" if whole.nonce else bytes(12)},
                {"nonce": bytes(12)},
                {"ciphertext": ciphertext[:-1]},
                {"ciphertext": ciphertext + b"\0"},
                {"ciphertext": bytes([ciphertext[0] ^ 1]) + ciphertext[1:]},
                {"ciphertext": ciphertext[:-1] + bytes([ciphertext[-1] ^ 1])},
            ):
                altered = encode_wrapped(msgspec.structs.replace(whole, **changes))
                with check_raises(ContextMismatch, f"{algorithm} with other {list(changes)}"):
                    opened.unwrap(altered, _INFO, _AAD)

    def test_garbage_does_not_unwrap(self) -> None:
        """What does not parse, or is too short to hold a tag, is the caller's mistake."""
        for algorithm in _WRAPPING:
            opened = _open(self.bench.custody, _make(self.bench.custody, algorithm))
            whole = opened.wrap(b"plain", _INFO, _AAD).wrapped
            cut = b64u_encode(b64u_decode(whole.removeprefix("ksw1."))[:-1])
            for text in ("", "ksw1.", "ksw1.!", f"ksw1.{cut}", whole[:-2], "ks1." + whole[5:]):
                with check_raises(MalformedRequest, f"{text[:12]!r}..."):
                    opened.unwrap(text, _INFO, _AAD)

    def test_short_ciphertexts_do_not_unwrap(self) -> None:
        """Shorter than a tag or an encapsulated key: refused by name, never a fault."""
        for algorithm in _WRAPPING:
            opened = _open(self.bench.custody, _make(self.bench.custody, algorithm))
            whole = decode_wrapped(opened.wrap(b"", _INFO, _AAD).wrapped)
            for size in (0, 1, 15, min(16, len(whole.ciphertext) - 1), len(whole.ciphertext) - 1):
                short = msgspec.structs.replace(whole, ciphertext=whole.ciphertext[:size])
                try:
                    opened.unwrap(encode_wrapped(short), _INFO, _AAD)
                except (ContextMismatch, MalformedRequest):
                    continue
                raise AssertionError(f"expected {size} bytes of {algorithm} to be refused")

    def test_derived_secrets_are_deterministic(self) -> None:
        """The same for the same facts and info, another for any other, of the length asked for."""
        made = _make(self.bench.custody, "hkdf-sha256")
        opened = _open(self.bench.custody, made)
        first = opened.derive(Derive(), _INFO).secret
        check_equal(_open(self.bench.restarted(), made).derive(Derive(), _INFO).secret, first, "")
        others = [
            opened.derive(Derive(info=b"other"), _INFO).secret,
            opened.derive(Derive(), _INFO + b"!").secret,
            _open(self.bench.custody, _make(self.bench.custody, "hkdf-sha256"))
            .derive(Derive(), _INFO)
            .secret,
        ]
        check_equal(len({first, *others}), 4, "different secrets")
        for length in (1, 33, limits.DERIVED_BYTES_MAX):
            check_equal(len(opened.derive(Derive(length=length), _INFO).secret), length, "length")
        for length in (0, -1, limits.DERIVED_BYTES_MAX + 1):
            with check_raises(MalformedRequest, f"a length of {length}"):
                opened.derive(Derive(length=length), _INFO)

    def test_macs_are_checked(self) -> None:
        """A tag is made, and a given one is compared."""
        opened = _open(self.bench.custody, _make(self.bench.custody, "hmac-sha256"))
        tag = opened.mac(Mac(message=b"m"), _INFO).tag
        check_equal(len(tag), 32, "length of a tag")
        check_equal(opened.mac(Mac(message=b"m", tag=tag), _INFO).tag, tag, "the checked tag")
        for message, given, info in (
            (b"n", tag, _INFO),
            (b"m", tag, _INFO + b"!"),
            (b"m", tag[:-1], _INFO),
            (b"m", b"", _INFO),
            (b"m", bytes(32), _INFO),
        ):
            with check_raises(ContextMismatch, "a tag of something else"):
                opened.mac(Mac(message=message, tag=given), info)

    def test_a_data_key_does_not_sign(self) -> None:
        """Signing is refused."""
        opened = _open(self.bench.custody, _make(self.bench.custody, "aes-256-gcm-siv"))
        with check_raises(AlgorithmForbidden, "signing with a data key"):
            opened.sign(b"m", prehashed=False)

    # --- the end -----------------------------------------------------------------------------

    def test_a_closed_version_does_nothing(self) -> None:
        """After close every call raises; closing again does not."""
        for algorithm in ("ed25519", "aes-256-gcm-siv"):
            made = _make(self.bench.custody, algorithm)
            opened = _open(self.bench.custody, made)
            opened.close()
            opened.close()
            calls: tuple[Callable[[OpenKey], object], ...] = (
                (lambda key: key.sign(b"m", prehashed=False),)
                if algorithm == "ed25519"
                else (
                    lambda key: key.wrap(b"x", _INFO, _AAD),
                    lambda key: key.unwrap("ksw1.", _INFO, _AAD),
                    lambda key: key.derive(Derive(), _INFO),
                    lambda key: key.mac(Mac(message=b"x"), _INFO),
                )
            )
            for call in calls:
                with check_raises(CustodyUnavailable, f"a closed {algorithm} version"):
                    call(opened)
            _open(self.bench.custody, made).close()

    def test_a_closed_custody_does_nothing(self) -> None:
        """After close nothing opens, and nothing is sealed under what is left."""
        made = _make(self.bench.custody, "ed25519")
        custody = self.bench.custody
        custody.close()
        custody.close()
        calls: tuple[Callable[[], object], ...] = (
            lambda: _open(custody, made),
            lambda: custody.new_tenant_key("shop"),
            lambda: custody.generate(made.key, 2, "ed25519", made.tenant_key),
        )
        for call in calls:
            with check_raises(CustodyUnavailable, "a closed custody"):
                call()
        _check_signs(made, _open(self.bench.restarted(), made))

    def test_calls_are_thread_safe(self) -> None:
        """Many threads at one version, signing and wrapping."""
        signing = _make(self.bench.custody, "ecdsa-p256-sha256")
        signer = _open(self.bench.custody, signing)
        data = _open(self.bench.custody, _make(self.bench.custody, "aes-256-gcm-siv"))

        def work(number: int) -> bytes:
            _check_signs(signing, signer)
            plain = b"%d" % number
            return data.unwrap(data.wrap(plain, _INFO, _AAD).wrapped, _INFO, _AAD).plaintext

        with ThreadPoolExecutor(_THREADS) as pool:
            found = list(pool.map(work, range(_CALLS)))
        check_equal(found, [b"%d" % number for number in range(_CALLS)], "what came back")
