"""The custody contract on software custody, under a seal file."""

from pathlib import Path

import pytest

from keystead.custody.root import RootKey
from keystead.custody.seal_file import FileSeal
from keystead.custody.software import SoftwareCustody
from keystead.net.system import SystemRandom
from keystead.testing.contracts.custody import CustodyContract


class SoftwareBench:
    def __init__(self, folder: Path) -> None:
        self.seal = FileSeal(folder / "seal.key")
        self.seal.create(SystemRandom())
        root, self.sealed = RootKey.create(self.seal, "d-1", SystemRandom())
        self.custody = SoftwareCustody(root, SystemRandom())

    def restarted(self) -> SoftwareCustody:
        root = RootKey.unseal(self.seal, self.sealed, "d-1", SystemRandom())
        return SoftwareCustody(root, SystemRandom())

    def foreign(self) -> SoftwareCustody:
        root, _ = RootKey.create(self.seal, "d-1", SystemRandom())
        return SoftwareCustody(root, SystemRandom())


class TestSoftwareCustody(CustodyContract):
    @pytest.fixture(autouse=True)
    def _on_the_bench(self, tmp_path: Path) -> None:
        self.bench = SoftwareBench(tmp_path)
