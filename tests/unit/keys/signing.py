"""Keys with real key pairs, and what the framings build and they sign, as the vault would."""

from collections.abc import Callable, Mapping
from functools import cache

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa

from keystead.crypto.public import key_id, pem
from keystead.crypto.signatures import pss_sha256
from keystead.keys.algorithms import ALGORITHMS
from keystead.keys.commands import VersionInfo
from keystead.keys.framing.base import Facts, Framing, Result, Scene
from keystead.keys.framing.firmware import FIRMWARE, FirmwareResult, SignFirmware
from keystead.keys.framing.ledger import LEDGER, AppendLedger, LedgerResult
from keystead.keys.lifecycle import State
from keystead.keys.model import FirmwarePolicy, JwtPolicy, Key, Policy, Version
from keystead.keys.purposes import Purpose
from keystead.keys.verify import PublicKey, SignedEntry

NOW_S = 1_800_000_000
NOW_MS = NOW_S * 1000
DUAL = "dual-ecdsa-p256-ml-dsa-65"
POLICIES = {
    Purpose.JWT: Policy(jwt=JwtPolicy(issuer="https://id.example")),
    Purpose.FIRMWARE: Policy(firmware=FirmwarePolicy(names=("router",))),
}
Signer = Callable[[bytes], bytes]


@cache
def component_key(component: str, number: int) -> tuple[bytes, Signer]:
    """SPKI of a key pair, and what signs as custody does; ``number`` makes it another pair."""
    del number
    if component == "ed25519":
        ed = ed25519.Ed25519PrivateKey.generate()
        return spki(ed.public_key()), ed.sign
    if component == "ml-dsa-65":
        dsa = mldsa.MLDSA65PrivateKey.generate()
        return spki(dsa.public_key()), dsa.sign
    if component.startswith("rsa-pss"):
        rs = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        scheme: padding.PSS = pss_sha256()
        return spki(rs.public_key()), lambda m: rs.sign(m, scheme, hashes.SHA256())
    p256 = ec.generate_private_key(ec.SECP256R1())
    return spki(p256.public_key()), lambda m: p256.sign(m, ec.ECDSA(hashes.SHA256()))


def spki(
    key: ec.EllipticCurvePublicKey
    | ed25519.Ed25519PublicKey
    | mldsa.MLDSA65PublicKey
    | rsa.RSAPublicKey,
) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def vault_key(purpose: Purpose, *algorithms: str) -> Key:
    """A key as the vault has it, one active version an algorithm."""
    versions = tuple(
        Version(
            number=number,
            state=State.ACTIVE,
            algorithm=algorithm,
            public=publics(algorithm, number),
            kid=key_id(publics(algorithm, number)),
            created_ms=NOW_MS,
        )
        for number, algorithm in enumerate(algorithms, start=1)
    )
    return Key(
        id="k-1",
        name="shop",
        tenant="default",
        labels={},
        purpose=purpose,
        algorithms=algorithms,
        prehashed=False,
        policy=POLICIES.get(purpose, Policy()),
        generation=1,
        primary=1,
        versions=versions,
        revision=1,
        epoch=1,
        created_ms=NOW_MS,
    )


def publics(algorithm: str, number: int) -> tuple[bytes, ...]:
    return tuple(component_key(c, number)[0] for c in ALGORITHMS[algorithm].components)


def published(key: Key, states: Mapping[int, State] | None = None) -> PublicKey:
    """The same key as anyone sees it, with some versions in other states."""
    return PublicKey(
        name=key.name,
        purpose=key.purpose,
        id=key.id,
        versions=tuple(
            VersionInfo(
                number=version.number,
                state=(states or {}).get(version.number, version.state),
                algorithm=version.algorithm,
                kid=version.kid,
                created_ms=version.created_ms,
                public_pem=tuple(map(pem, version.public)),
            )
            for version in key.versions
        ),
    )


def signed(
    framing: Framing, facts: Facts, key: Key, *, version: int = 1, counter: bytes | None = None
) -> tuple[Result, bytes | None]:
    """What the vault would answer, and the counter after it."""
    scene = Scene(
        key=key,
        version=key.version(version),
        context="shop/eu",
        now_ms=NOW_MS,
        random=bytes(32),
        counter=counter,
    )
    framed = framing.frame(facts, scene)
    components = scene.algorithm.components
    raw = tuple(component_key(c, version)[1](framed.message) for c in components)
    return framed.finish(raw), framed.step.new if framed.step else None


def manifest_of(key: Key) -> FirmwareResult:
    facts = SignFirmware(name="router", version=7, sha256=b"\x11" * 32, size=4096)
    result, _ = signed(FIRMWARE, facts, key)
    assert isinstance(result, FirmwareResult)
    return result


def ledger_of(key: Key, *versions: int) -> list[SignedEntry]:
    entries: list[SignedEntry] = []
    counter = None
    for number, version in enumerate(versions, start=1):
        entry = f"entry {number}".encode()
        result, counter = signed(
            LEDGER, AppendLedger(entry=entry), key, version=version, counter=counter
        )
        assert isinstance(result, LedgerResult)
        entries.append(
            SignedEntry(document=result.document, signatures=result.signatures, entry=entry)
        )
    return entries
