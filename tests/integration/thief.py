"""Whoever has copied a node's data folder: signs with its keys as its vault would, in no log."""

import json
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from keystead.crypto.signatures import ecdsa_raw
from keystead.custody.root import RootKey
from keystead.custody.seal_file import FileSeal
from keystead.custody.software import SoftwareCustody
from keystead.encoding import b64u_encode
from keystead.keys.framing.base import Facts, Scene
from keystead.keys.model import Key
from keystead.keys.operations import FRAMINGS
from keystead.keys.purposes import Purpose
from keystead.net.system import SystemRandom
from keystead.ports import OpenKey
from keystead.store.sqlite_registry import SqliteRegistry
from keystead.vault.authority import load
from keystead.vault.macs import VaultSecrets


class Thief:
    """Opens registry and seal of a running node, which does not notice."""

    def __init__(self, data: Path) -> None:
        self._registry = SqliteRegistry(data / "registry.db")
        random = SystemRandom()
        sealed = self._registry.meta("sealed_root")
        deployment = self._registry.meta("deployment")
        assert sealed is not None
        assert deployment is not None
        self._root = RootKey.unseal(
            FileSeal(data / "seal.key"), sealed, deployment.decode(), random
        )
        self._custody = SoftwareCustody(self._root, random)

    def sign(self, name: str, facts: Facts) -> Any:  # noqa: ANN401  the framing's own result
        """What the vault would give for these facts, but for a counter that begins anew."""
        key = self._key(name)
        operation = "append" if key.purpose is Purpose.LEDGER else "sign"
        scene = Scene(
            key=key,
            version=key.primary_version(),
            context="stolen/goods",
            now_ms=time.time_ns() // 1_000_000,
            random=os.urandom(32),
        )
        framed = FRAMINGS[key.purpose, operation].frame(facts, scene)
        return framed.finish(self._signed(key, framed.message))

    def token(self, name: str, header: dict[str, str], claims: bytes) -> str:
        """A token as no vault would make it, by a P-256 key."""
        message = f"{b64u_encode(json.dumps(header).encode())}.{b64u_encode(claims)}"
        [signature] = self._signed(self._key(name), message.encode())
        return f"{message}.{b64u_encode(ecdsa_raw('ecdsa-p256-sha256', signature))}"

    def _key(self, name: str) -> Key:
        labels = (b"handles", b"registry", b"fingerprints")
        secrets = VaultSecrets(*map(self._root.derive, labels))
        return load(self._registry.objects(), self._registry.epoch(), secrets).named(name)

    def _signed(self, key: Key, message: bytes) -> tuple[bytes, ...]:
        version = key.primary_version()
        material = self._registry.material(key.id, version.number)
        tenant_key = self._registry.tenant_key(key.tenant)
        assert material is not None
        assert tenant_key is not None
        opened: OpenKey = self._custody.open(key, version, material, tenant_key)
        try:
            return opened.sign(message, prehashed=False)
        finally:
            opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        self._custody.close()
        self._registry.close()
