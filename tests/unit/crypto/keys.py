"""Fixed key pairs for tests of primitives, and their encodings."""

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

RSA_2048 = rsa.generate_private_key(65537, 2048)
PRIVATE: dict[str, PrivateKeyTypes] = {
    "ecdsa-p256-sha256": ec.derive_private_key(7, ec.SECP256R1()),
    "ecdsa-p384-sha384": ec.derive_private_key(7, ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.from_private_bytes(b"\1" * 32),
    "ml-dsa-44": mldsa.MLDSA44PrivateKey.from_seed_bytes(b"\1" * 32),
    "ml-dsa-65": mldsa.MLDSA65PrivateKey.from_seed_bytes(b"\1" * 32),
    "rsa-pss-2048-sha256": RSA_2048,
}
"""Component to a key of it."""
P521 = ec.derive_private_key(7, ec.SECP521R1())


def pkcs8(key: PrivateKeyTypes) -> bytearray:
    return bytearray(
        key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def spki(key: PrivateKeyTypes) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
