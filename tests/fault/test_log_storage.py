"""The publishing path on a failing disk, under kills, and on what it finds at a start.

Every step of it fails twice: not done, and done but reported as failed. After each the log verifies
from storage, and the next round goes on. What a checkpoint stands on was synced before it.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal, Self

import msgspec
import pytest

from integration.node import Node
from keystead.errors import LogUnavailable
from keystead.frames.messages import Answer, Done, Request, SignedHead
from keystead.fsck.run import Options, Report, verify
from keystead.net.link import VaultLink
from keystead.steward.cosigning import Cosigners
from keystead.steward.publishing import Publisher
from keystead.steward.tree import TreeWriter
from keystead.store.anchor_file import AnchorFile
from keystead.store.sqlite_registry import SqliteRegistry
from keystead.store.tile_files import TileFiles
from keystead.store.tree_files import TreeFiles
from keystead.translog.tiles import Bundle, Tile
from unit.fsck.written import Writer, writing

pytestmark = pytest.mark.anyio
KILLS = 5
BEFORE, AFTER = 250, 275
"""Sizes of two rounds; a tile is filled between them."""

Form = Literal["not done", "done, and reported as failed"]
FORMS: tuple[Form, ...] = ("not done", "done, and reported as failed")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def check(data: Path) -> Report:
    return verify(Options(data=data), lambda _at, _total, _found: None)


def check_sound(data: Path, *sizes: int) -> None:
    report = check(data)
    assert report.shown == []
    assert report.published in sizes


# --- a publisher ---------------------------------------------------------------------------------


class Signing(VaultLink):
    """In place of the vault behind its socket: commits a checkpoint over the rows of a writer."""

    def __init__(self, log: Writer) -> None:
        super().__init__("")
        self._log = log

    async def call(self, request: Request) -> Answer:
        row = self._log.sign()
        head = SignedHead(
            vkey=self._log.key.encode(),
            size=row.size,
            root=row.root,
            note=row.note,
            time_ms=row.time_ms,
        )
        return Done(request.id, msgspec.msgpack.encode(head))


class Desk:
    """A log and the publisher of it, as they are after a start of the steward."""

    def __init__(self, log: Writer) -> None:
        self.log = log
        self.files = TileFiles(log.data / "log")
        self.rows = SqliteRegistry(log.data / "registry.db")
        self.writer = TreeWriter(self.rows, TreeFiles(self.files))
        self.publisher = Publisher(
            Signing(log), self.writer, self.files, Cosigners([], time.monotonic)
        )

    def close(self) -> None:
        self.rows.close()

    async def round(self) -> None:
        await self.publisher.publish()


@contextmanager
def desk_on(data: Path) -> Iterator[Desk]:
    """A publisher on a folder, which a writer fills."""
    with writing(data) as log, closing(Desk(log)) as desk:
        yield desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with desk_on(tmp_path / "data") as made:
        yield made


# --- a disk that fails ---------------------------------------------------------------------------


class Disk:
    """The system calls that write below a folder; one of them can be made to fail.

    It also keeps which folders have names in them that are not synced, and which files were put in
    place without it: a crash could lose these.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.steps = 0
        self.fails_at = -1
        self.form: Form = "not done"
        self.unsynced: set[Path] = set()
        self._written: set[Path] = set()
        self._real: dict[str, Callable[..., Any]] = {}
        for name in ("open", "fdopen", "fchmod", "fsync", "replace", "mkdir"):
            self._real[name] = getattr(os, name)
            monkeypatch.setattr(os, name, getattr(self, name))

    def _step(self, inside: bool, do: Callable[[], Any]) -> Any:  # noqa: ANN401, FBT001  what the call gives
        if not inside:
            return do()
        self.steps += 1
        if self.steps - 1 != self.fails_at:
            return do()
        if self.form != "not done":
            done = do()
            if isinstance(done, int):
                os.close(done)
        raise OSError(errno.EIO, "injected")

    def _inside(self, path: Path) -> bool:
        return self.folder in (path, *path.parents)

    def _path_of(self, handle: int) -> Path:
        return Path(f"/proc/self/fd/{handle}").readlink()

    def open(self, path: str | Path, flags: int, mode: int = 0o777, **more: Any) -> int:  # noqa: ANN401  passed on
        inside = self._inside(Path(path)) and more.get("dir_fd") is None

        def do() -> int:
            handle: int = self._real["open"](path, flags, mode, **more)
            if inside and flags & os.O_CREAT:
                self._written.add(Path(path))
            return handle

        return int(self._step(inside, do))

    def fdopen(self, handle: int, *args: Any, **more: Any) -> Any:  # noqa: ANN401  passed on
        file = self._real["fdopen"](handle, *args, **more)
        return _File(self, file) if self._inside(self._path_of(handle)) else file

    def fchmod(self, handle: int, mode: int) -> None:
        inside = self._inside(self._path_of(handle))
        self._step(inside, lambda: self._real["fchmod"](handle, mode))

    def fsync(self, handle: int) -> None:
        path = self._path_of(handle)

        def do() -> None:
            self._real["fsync"](handle)
            self._written.discard(path)
            self.unsynced.discard(path)

        self._step(self._inside(path), do)

    def replace(self, old: Path, new: Path) -> None:
        inside = self._inside(Path(new))

        def do() -> None:
            if inside:
                assert Path(old) not in self._written, f"{new} was put in place unsynced"
                if Path(new).name == "checkpoint":
                    assert not self.unsynced, "the checkpoint stands on what a crash can lose"
            self._real["replace"](old, new)
            if inside and Path(new).name != "checkpoint":
                self.unsynced.add(Path(new).parent)

        self._step(inside, do)

    def mkdir(self, path: str | Path, *args: Any, **more: Any) -> None:  # noqa: ANN401  passed on
        makes = Path(path).parent.is_dir() and not Path(path).exists()
        inside = makes and self.folder in Path(path).parents

        def do() -> None:
            self._real["mkdir"](path, *args, **more)
            if inside:
                self.unsynced.add(Path(path).parent)

        self._step(inside, do)

    def write(self, file: Any, data: bytes) -> None:  # noqa: ANN401  a file
        self._step(inside=True, do=lambda: (file.write(data), file.flush())[1])


class _File:
    """An open file whose writes are steps."""

    def __init__(self, disk: Disk, file: Any) -> None:  # noqa: ANN401  a file
        self._disk = disk
        self._file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  the file's own
        return getattr(self._file, name)

    def write(self, data: bytes) -> None:
        self._disk.write(self._file, data)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A log that was never published, and one that was at another size than it has."""
    folder = tmp_path_factory.mktemp("logs")
    with writing(folder / "new") as log:
        log.append(AFTER)
    with writing(folder / "grown") as log:
        log.grow(BEFORE)
        log.append(AFTER - BEFORE)
    return {"new": folder / "new", "grown": folder / "grown"}


def continued(template: Path, data: Path) -> Writer:
    """A copy of a log, and a writer that knows what is in it."""
    shutil.copytree(template, data)
    log = Writer(data)
    log.take_up()
    return log


async def two_rounds(
    log: Writer, patch: pytest.MonkeyPatch, form: Form, fails_at: int, began: int
) -> int:
    """A round in which a step fails, and the next one; gives how many steps the first one made."""
    (log.data / "log").mkdir(exist_ok=True)  # as the supervisor does
    disk = Disk(log.data / "log", patch)
    disk.form, disk.fails_at = form, fails_at
    with closing(Desk(log)) as desk:
        if fails_at < 0:
            await desk.round()
            return disk.steps
        try:
            await desk.round()
        except LogUnavailable:
            check_sound(log.data, began, AFTER)
        else:  # a folder that is there after all, a partial tile that stays
            check_sound(log.data, AFTER)
        await desk.round()  # under the same eyes: it does not stand on what was left undone
        assert desk.publisher.findings == []  # a failing disk is no tampering
        check_sound(log.data, AFTER)
    return disk.steps


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["new", "grown"])
async def test_each_step_of_a_round_fails(
    logs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, form: Form
) -> None:
    began = BEFORE if name == "grown" else 0
    steps = 1
    for at in range(-1, 200):
        if at == steps:
            break
        data = tmp_path / str(at)
        with closing(continued(logs[name], data)) as log, monkeypatch.context() as patch:
            made = await two_rounds(log, patch, form, at, began)
        shutil.rmtree(data)
        steps = made if at < 0 else steps
    assert 30 < steps < 200


@pytest.mark.parametrize("form", FORMS)
def test_each_step_of_an_anchor_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Form
) -> None:
    """It remembers the one checkpoint or the other, whole, and the next one whatever happened."""
    with monkeypatch.context() as patch:
        counting = Disk(tmp_path / "count", patch)
        (tmp_path / "count").mkdir()
        AnchorFile(tmp_path / "count" / "anchor").write(b"old\n")
    assert counting.steps > 5
    for at in range(counting.steps):
        folder = tmp_path / str(at)
        folder.mkdir()
        anchor = AnchorFile(folder / "anchor")
        anchor.write(b"old\n")
        with monkeypatch.context() as patch:
            disk = Disk(folder, patch)
            disk.form, disk.fails_at = form, at
            with pytest.raises(LogUnavailable, match="cannot be used"):
                anchor.write(b"new\n")
            assert anchor.read() in (b"old\n", b"new\n")
            anchor.write(b"newer\n")
        assert anchor.read() == b"newer\n"
        assert [path.name for path in folder.iterdir()] == ["anchor"]


# --- what a start of the steward finds -----------------------------------------------------------


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A log with three full tiles, published up to a partial one, and grown since."""
    with writing(tmp_path / "data") as log:
        log.grow(800)
        log.append(30)
    return tmp_path / "data"


async def check_made_good(data: Path, trouble: str) -> None:
    """A new steward says what was wrong, and publishes all there is."""
    with closing(Writer(data)) as log:
        log.take_up()
        with closing(Desk(log)) as desk:
            _, said = TreeWriter(desk.rows, TreeFiles(desk.files)).resume(log.key)
            assert trouble in said
            assert bool(trouble) == bool(said)
            await desk.round()
            assert desk.publisher.findings == []
        check_sound(data, log.frontier.size)


async def test_start_with_nothing_wrong(published: Path) -> None:
    await check_made_good(published, "")


async def test_start_without_a_checkpoint(published: Path) -> None:
    (published / "log/checkpoint").unlink()
    await check_made_good(published, "")


async def test_start_without_any_file(published: Path) -> None:
    shutil.rmtree(published / "log")
    await check_made_good(published, "")


@pytest.mark.parametrize("cut", [0, 1, 40, -1])
async def test_start_with_a_damaged_checkpoint(published: Path, cut: int) -> None:
    path = published / "log/checkpoint"
    path.write_bytes(path.read_bytes()[:cut])
    await check_made_good(published, "not this log's")


async def test_start_with_an_altered_checkpoint(published: Path) -> None:
    path = published / "log/checkpoint"
    path.write_bytes(path.read_bytes().replace(b"\n800\n", b"\n700\n"))
    await check_made_good(published, "not this log's")


async def test_start_with_another_logs_checkpoint(published: Path, tmp_path: Path) -> None:
    with writing(tmp_path / "other", seed=2) as other:
        other.append(20)
        (published / "log/checkpoint").write_bytes(other.note())
    await check_made_good(published, "not this log's")


EDGE: list[Tile | Bundle] = [Tile(0, 3, 32), Tile(1, 0, 3), Bundle(3, 32)]
"""What the writer goes on from at 800."""


@pytest.mark.parametrize("item", EDGE, ids=lambda item: item.path)
async def test_start_without_a_file_of_the_edge(published: Path, item: Tile | Bundle) -> None:
    (published / "log" / item.path).unlink()
    await check_made_good(published, "missing or damaged")


@pytest.mark.parametrize("item", EDGE, ids=lambda item: item.path)
@pytest.mark.parametrize("cut", [0, -1])
async def test_start_with_a_cut_file_of_the_edge(
    published: Path, item: Tile | Bundle, cut: int
) -> None:
    path = published / "log" / item.path
    path.write_bytes(path.read_bytes()[:cut])
    await check_made_good(published, "missing or damaged")


@pytest.mark.parametrize("item", EDGE[:2], ids=lambda item: item.path)
async def test_start_with_an_altered_tile_of_the_edge(published: Path, item: Tile | Bundle) -> None:
    path = published / "log" / item.path
    path.write_bytes(b"x" + path.read_bytes()[1:])
    await check_made_good(published, "missing or damaged")


async def test_start_with_an_altered_bundle_of_the_edge(published: Path) -> None:
    """It is written again with more entries, so it must not be gone on with."""
    path = published / "log" / EDGE[2].path
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    await check_made_good(published, "missing or damaged")


@pytest.mark.parametrize("name", ["tile/0/001", "tile/entries/001"])
async def test_a_full_file_is_not_read_at_a_start(published: Path, name: str) -> None:
    """There are too many; fsck finds it, and without the folder all is made again."""
    path = published / "log" / name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with closing(Writer(published)) as log:
        log.take_up()
        with closing(Desk(log)) as desk:
            await desk.round()
    [finding] = check(published).shown
    assert finding.place.startswith(f"{name}, ")
    shutil.rmtree(published / "log")
    await check_made_good(published, "")


async def test_start_with_tiles_ahead_of_the_checkpoint(published: Path) -> None:
    """The steward was killed before it published: the partial tile of its checkpoint is gone."""
    with closing(Writer(published)) as log:
        log.take_up()
        log.append(300)
        log.tree.append([row.entry for row in log.rows])
    assert not (published / "log/tile/entries/003.p").exists()
    await check_made_good(published, "")


async def test_start_with_a_checkpoint_ahead_of_the_database(
    published: Path, tmp_path: Path
) -> None:
    """An older database was put back: nothing is published, nothing is taken back."""
    older = tmp_path / "older"
    with writing(older) as log:
        log.append(500)
        shutil.copytree(published / "log", older / "log")
        before = (older / "log/checkpoint").read_bytes()
        with closing(Desk(log)) as desk:
            for _ in range(2):
                await desk.round()
            [finding] = desk.publisher.findings
    assert "800 was published, the log has 500 records" in finding
    assert (older / "log/checkpoint").read_bytes() == before
    assert "checkpoint" in [finding.place for finding in check(older).shown]


def test_an_entry_is_there_while_its_bundle_fills(published: Path) -> None:
    """Partial forms go before the checkpoint that needs none of them is put in place."""
    files = TileFiles(published / "log")
    part = Bundle(3, 32)
    before = files.read(part)
    with closing(Writer(published)) as log:
        log.take_up()
        log.append(300)
        log.tree.append([row.entry for row in log.rows])
    assert files.read(part) == before


# --- a steward that is killed --------------------------------------------------------------------


@pytest.mark.slow
def test_the_steward_is_killed_while_it_publishes(tmp_path: Path) -> None:
    with Node(tmp_path / "data") as node, node.client() as client:
        client.create_key("books", "ledger")
        handle = client.issue_handle("books", "clerk").handle
        killed: set[int] = set()
        last = -1
        draw = random.Random(KILLS)  # noqa: S311  a test's choice
        while len(killed) < KILLS:
            for at in range(draw.randrange(5, 60)):
                used = client.append_ledger(handle, b"%d" % at, context="books")
                last = used.receipt.seq or last
            steward = node.children().get("steward")
            if steward is not None and steward not in killed:
                os.kill(steward, signal.SIGKILL)
                killed.add(steward)
            assert check(node.data).shown == []
        wait_for(lambda: check(node.data).published > last)
    assert check(node.data).shown == []


def wait_for(reached: Callable[[], bool], within_s: float = 40.0) -> None:
    until = time.monotonic() + within_s
    while not reached():
        if time.monotonic() > until:
            pytest.fail(f"not reached within {within_s} s")
        time.sleep(0.1)
