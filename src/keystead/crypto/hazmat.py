"""Raw private-key work. Danger: whoever imports this module handles private keys.

Only ``keystead.custody`` may, and a house test holds that. This is also the one place where
randomness is drawn inside pure code: key generation, ECDSA, PSS and HPKE draw it in OpenSSL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import (
    ec,
    ed25519,
    mldsa,
    mlkem,
    padding,
    rsa,
    x25519,
)
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from keystead.crypto.signatures import ECDSA_HASHES, pss_sha256
from keystead.errors import CustodyUnavailable, SignatureInvalid

__all__ = ["Generated", "Signer", "generate", "hpke_open", "hpke_seal", "open_signer"]

_PKCS8 = (
    serialization.Encoding.DER,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
)
_SPKI = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
_RAW_PUBLIC = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)
_RSA_BITS = {
    "rsa-pss-2048-sha256": 2048,
    "rsa-pss-3072-sha256": 3072,
    "rsa-pkcs1-3072-sha256": 3072,
}
_WHOLE_MESSAGE: dict[str, Any] = {
    "ed25519": ed25519.Ed25519PrivateKey,
    "ml-dsa-44": mldsa.MLDSA44PrivateKey,
    "ml-dsa-65": mldsa.MLDSA65PrivateKey,
}
_X25519_BYTES = 32
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)

Signer = Callable[[bytes, bool], bytes]
"""(message, prehashed) to the raw signature; ECDSA as DER."""


class Generated(NamedTuple):
    """A new key pair: ``private`` is the caller's to seal and wipe, ``public`` is DER SPKI."""

    private: bytearray
    public: bytes


def _new_key(component: str) -> Any:  # noqa: ANN401  one of pyca's private key types
    if component in ECDSA_HASHES:
        return ec.generate_private_key(ECDSA_HASHES[component][0]())
    if component in _RSA_BITS:
        return rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS[component])
    return _WHOLE_MESSAGE[component].generate()


def generate(component: str) -> Generated:
    """Make a key pair of a signature component, or of ``hpke-mlkem768-x25519``.

    Raises:
        KeyError: no such component.
    """
    if component == "hpke-mlkem768-x25519":
        return _generate_hpke()
    key = _new_key(component)
    return Generated(bytearray(key.private_bytes(*_PKCS8)), key.public_key().public_bytes(*_SPKI))


def open_signer(component: str, private: bytearray) -> Signer:
    """A signer over PKCS#8 DER; the buffer may be wiped as soon as this returns.

    Raises:
        CustodyUnavailable: the material is not a key of this component.
    """
    try:
        key: Any = serialization.load_der_private_key(private, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise CustodyUnavailable("the key material does not parse") from exc
    match key:
        case ec.EllipticCurvePrivateKey() if _is_on_curve(key, component):
            return _ecdsa_signer(key, ECDSA_HASHES[component][1])
        case rsa.RSAPrivateKey() if key.key_size == _RSA_BITS.get(component):
            scheme = padding.PKCS1v15() if component.startswith("rsa-pkcs1") else pss_sha256()
            return _rsa_signer(key, scheme)
        case _ if isinstance(key, _WHOLE_MESSAGE.get(component, ())):
            return lambda message, _prehashed: key.sign(message)
        case _:
            raise CustodyUnavailable(f"the key material is not one for {component}")


def _is_on_curve(key: ec.EllipticCurvePrivateKey, component: str) -> bool:
    return component in ECDSA_HASHES and isinstance(key.curve, ECDSA_HASHES[component][0])


def _ecdsa_signer(key: ec.EllipticCurvePrivateKey, digest: hashes.HashAlgorithm) -> Signer:
    whole, hashed = ec.ECDSA(digest), ec.ECDSA(Prehashed(digest))
    return lambda message, prehashed: key.sign(message, hashed if prehashed else whole)


def _rsa_signer(key: rsa.RSAPrivateKey, scheme: padding.AsymmetricPadding) -> Signer:
    whole, hashed = hashes.SHA256(), Prehashed(hashes.SHA256())
    return lambda message, prehashed: key.sign(message, scheme, hashed if prehashed else whole)


def _generate_hpke() -> Generated:
    kem, curve = mlkem.MLKEM768PrivateKey.generate(), x25519.X25519PrivateKey.generate()
    private = bytearray(kem.private_bytes_raw()) + bytearray(curve.private_bytes_raw())
    public = kem.public_key().public_bytes(*_RAW_PUBLIC) + curve.public_key().public_bytes(
        *_RAW_PUBLIC
    )
    return Generated(private, public)


def hpke_seal(public: bytes, plaintext: bytes, info: bytes) -> bytes:
    """HPKE base mode (RFC 9180) with ML-KEM-768 + X25519: enc and ciphertext in one string.

    ``public``: the two raw public keys, ML-KEM's first.
    """
    kem = mlkem.MLKEM768PublicKey.from_public_bytes(public[:-_X25519_BYTES])
    curve = x25519.X25519PublicKey.from_public_bytes(public[-_X25519_BYTES:])
    return _SUITE.encrypt(plaintext, MLKEM768X25519PublicKey(kem, curve), info=info)


def hpke_open(private: bytearray, ciphertext: bytes, info: bytes) -> bytes:
    """Open what :func:`hpke_seal` made for this key and info.

    Raises:
        SignatureInvalid: another key or info, or the ciphertext was altered.
    """
    kem = mlkem.MLKEM768PrivateKey.from_seed_bytes(private[:-_X25519_BYTES])
    curve = x25519.X25519PrivateKey.from_private_bytes(private[-_X25519_BYTES:])
    try:
        return _SUITE.decrypt(ciphertext, MLKEM768X25519PrivateKey(kem, curve), info=info)
    except (InvalidTag, ValueError) as exc:
        raise SignatureInvalid("the ciphertext does not open under this key and context") from exc
