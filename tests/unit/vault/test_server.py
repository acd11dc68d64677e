"""The vault's socket: frames in, answers out, on both loops; a stranger's connection is closed."""

import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keystead import limits
from keystead.frames.codec import FrameReader, decode_answers, encode_frame
from keystead.frames.messages import Answer, Done, Public, Refused, Request, Status, StatusInfo
from keystead.keys.commands import MoveVersion
from keystead.keys.framing.data import Mac, Wrap
from keystead.keys.lifecycle import Move
from keystead.keys.model import CaPolicy, JwtPolicy, Policy
from keystead.keys.purposes import Purpose
from keystead.vault.server import listen
from unit.vault.node import Node, check_done, check_refused, result_of

pytestmark = pytest.mark.anyio
WITHIN_S = 10.0
NOBODY = 65534


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture
def node() -> Node:
    return Node()


class Wire:
    """A front's end of the socket, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._frames = FrameReader()
        self.writer = writer
        self.frames = 0

    async def answers(self, count: int) -> list[Answer]:
        """The next answers, from as many frames as they come in; fewer at the end."""
        found: list[Answer] = []
        async with asyncio.timeout(WITHIN_S):
            while len(found) < count:
                data = await self._reader.read(1 << 20)
                if not data:
                    break
                for body in self._frames.feed(data):
                    self.frames += 1
                    found += decode_answers(body)
        return found

    async def ended(self) -> bool:
        async with asyncio.timeout(WITHIN_S):
            try:
                return await self._reader.read(1) == b""
            except ConnectionResetError:
                return True

    async def ask(self, *requests: Request) -> list[Answer]:
        self.writer.write(encode_frame(requests))
        return await self.answers(len(requests))


@asynccontextmanager
async def connected(node: Node, path: Path) -> AsyncIterator[Wire]:
    async with node.serving():
        listener = await listen(node.built.service, str(path))
        reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 22)
        try:
            yield Wire(reader, writer)
        finally:
            writer.close()
            listener.close()
            await asyncio.sleep(0.01)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vault.sock"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def open_to_all(path: Path) -> None:
    path.chmod(0o666)
    path.parent.chmod(0o711)


# --- frames --------------------------------------------------------------------------------------


async def test_the_socket_is_its_owners_alone(node: Node, path: Path) -> None:
    async with connected(node, path) as wire:
        assert mode_of(path) == 0o600
        (answer,) = await wire.ask(Status(1))
        assert result_of(answer, StatusInfo).node == "node-a"


async def test_requests_of_a_frame_are_each_answered_once(node: Node, path: Path) -> None:
    async with connected(node, path) as wire:
        await node.create("web", Purpose.TLS)
        handle = (await node.issue("web")).token
        uses = [node.use_of(handle) for _ in range(50)]
        requests: list[Request] = [*uses, Status(1000), Public(1001, "keys", "web")]
        answers = await wire.ask(*requests)
        assert sorted(answer.id for answer in answers) == sorted(item.id for item in requests)
        assert all(isinstance(answer, Done) for answer in answers)


async def test_frames_come_in_any_pieces(node: Node, path: Path) -> None:
    async with connected(node, path) as wire:
        data = encode_frame([Status(1)]) + encode_frame([Status(2)])
        for at in range(len(data)):
            wire.writer.write(data[at : at + 1])
            await wire.writer.drain()
            if at % 5 == 0:
                await asyncio.sleep(0.001)
        assert [answer.id for answer in await wire.answers(2)] == [1, 2]


async def test_an_empty_frame_is_answered_with_nothing(node: Node, path: Path) -> None:
    async with connected(node, path) as wire:
        wire.writer.write(encode_frame([]))
        assert [answer.id for answer in await wire.ask(Status(7))] == [7]


async def test_large_answers_are_spread_over_frames(node: Node, path: Path) -> None:
    """No frame of answers is larger than a reader takes."""
    async with connected(node, path) as wire:
        await node.create("vault", Purpose.DATA)
        handle = (await node.issue("vault")).token
        plaintext = bytes(limits.DATA_BYTES_MAX)
        uses = [node.use_of(handle, Wrap(plaintext=plaintext), "data.wrap") for _ in range(12)]
        release = node.hold()
        wire.writer.write(encode_frame(uses))
        await asyncio.sleep(0.2)
        release()
        answers = await wire.answers(12)
        assert sum(len(check_done(answer).result) for answer in answers) > limits.FRAME_BYTES_MAX
        assert wire.frames > 1


@pytest.mark.parametrize(
    "sent",
    [
        (limits.FRAME_BYTES_MAX + 1).to_bytes(4, "big"),
        b"\xff" * 8,
        (1).to_bytes(4, "big") + b"\xc1",
        (3).to_bytes(4, "big") + b"\x91\x91\xa0",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["too long", "far too long", "no msgpack", "no request", "HTTP"],
)
async def test_what_is_no_frame_ends_the_connection(node: Node, path: Path, sent: bytes) -> None:
    async with connected(node, path) as wire:
        wire.writer.write(sent)
        assert await wire.ended()
        reader, writer = await asyncio.open_unix_connection(str(path))
        assert len(await Wire(reader, writer).ask(Status(1))) == 1
        writer.close()


async def test_too_many_requests_end_the_connection(node: Node, path: Path) -> None:
    async with connected(node, path) as wire:
        wire.writer.write(encode_frame([Status(at) for at in range(limits.FRAME_REQUESTS_MAX + 1)]))
        assert await wire.ended()


async def test_what_is_under_way_commits_though_nobody_waits(node: Node, path: Path) -> None:
    async with connected(node, path) as wire:
        await node.create("web", Purpose.TLS)
        handle = (await node.issue("web")).token
        release = node.hold()
        wire.writer.write(encode_frame([node.use_of(handle, key="once")]))
        await asyncio.sleep(0.05)
        wire.writer.transport.abort()
        await asyncio.sleep(0.05)
        release()
        again = check_done(await node.ask(node.use_of(handle, key="once")))
        assert again.receipt is not None
        assert again.receipt.replayed
    assert len(node.log("tls.sign")) == 1


async def test_a_connection_that_breaks_leaves_the_others(node: Node, path: Path) -> None:
    async with connected(node, path) as wire:
        _, other = await asyncio.open_unix_connection(str(path))
        other.write(b"\xff\xff\xff\xff")
        await asyncio.sleep(0.05)
        assert len(await wire.ask(Status(1))) == 1
        other.close()


STRANGER = f"""
import os, socket, sys
frame = sys.stdin.buffer.read()
os.setgid({NOBODY})
os.setuid({NOBODY})
with socket.socket(socket.AF_UNIX) as wire:
    wire.settimeout({WITHIN_S})
    wire.connect("vault.sock")
    try:
        wire.sendall(frame)
        print(len(wire.recv(100)))
    except (BrokenPipeError, ConnectionResetError):
        print(0)
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it connects as another user")
async def test_another_user_is_not_answered_nor_heard(node: Node, path: Path) -> None:
    """SO_PEERCRED: even if somebody opens the socket's mode."""
    async with connected(node, path) as wire:
        open_to_all(path)
        requests: list[Request] = [node.use_of("ks1.AAAA"), Status(5)]
        frame = encode_frame(requests)
        stranger = await asyncio.get_running_loop().run_in_executor(
            None,
            lambda: subprocess.run(
                [sys.executable, "-c", STRANGER],
                input=frame,
                capture_output=True,
                cwd=path.parent,
                timeout=WITHIN_S * 2,
                check=True,
            ),
        )
        assert stranger.stdout == b"0\n"
        assert len(await wire.ask(Status(1))) == 1
    assert node.log("tls.sign") == []


# --- what anyone may read ------------------------------------------------------------------------


async def public(node: Node, what: str, name: str) -> Answer:
    return await node.ask(Public(node.next_id(), what, name))


async def shown(node: Node, what: str, name: str) -> Any:  # noqa: ANN401  a JSON document
    _age_s, body = result_of(await public(node, what, name), tuple[int, bytes])
    return msgspec.json.decode(body)


async def test_public_keys_have_their_states(node: Node) -> None:
    async with node.serving():
        info = await node.create("web", Purpose.TLS)
        check_done(await node.admin(MoveVersion(name="web", move=Move.SUSPEND, reason="x")))
        key = await shown(node, "keys", "web")
    assert (key["id"], key["name"], key["purpose"]) == (info.id, "web", "tls")
    assert [version["state"] for version in key["versions"]] == ["suspended"]
    assert tuple(key["versions"][0]["public_pem"]) == info.versions[0].public_pem
    assert (key["rules"], key["unpublished"]) == ([], [])
    assert key["epoch"] > info.epoch
    assert not {"policy", "labels", "generation"} & set(key)


@pytest.mark.parametrize(
    ("algorithm", "kty"),
    [("ecdsa-p256-sha256", "EC"), ("ed25519", "OKP"), ("ml-dsa-65", "AKP")],
)
async def test_a_jwk_set_has_what_verifiers_may_meet(node: Node, algorithm: str, kty: str) -> None:
    policy = Policy(jwt=JwtPolicy(issuer="https://issuer.example"))
    async with node.serving():
        info = await node.create("tokens", Purpose.JWT, policy=policy, algorithm=algorithm)
        (key,) = (await shown(node, "jwks", "tokens"))["keys"]
        assert (key["kty"], key["kid"], key["use"]) == (kty, info.versions[0].kid, "sig")
        assert not {"d", "priv"} & set(key)
        check_done(
            await node.admin(MoveVersion(name="tokens", move=Move.COMPROMISE, reason="leaked"))
        )
        assert await shown(node, "jwks", "tokens") == {"keys": []}


async def test_only_an_authority_has_a_certificate_and_only_jwt_a_jwk_set(node: Node) -> None:
    policy = Policy(ca=CaPolicy(common_name="Shop CA", dns_suffixes=("shop.example",)))
    async with node.serving():
        await node.create("web", Purpose.TLS)
        await node.create("ca", Purpose.CA, policy=policy)
        age_s, pem = result_of(await public(node, "certificate", "ca"), tuple[int, bytes])
        assert age_s == 300
        assert pem.startswith(b"-----BEGIN CERTIFICATE-----")
        check_refused(await public(node, "certificate", "web"), "not_found")
        check_refused(await public(node, "jwks", "web"), "malformed_request")
        check_refused(await public(node, "jwks", "ca"), "malformed_request")
        check_refused(await public(node, "keys", "nobody"), "not_found")
        check_refused(await public(node, "secrets", "web"), "malformed_request")


async def test_a_data_key_shows_nothing_public(node: Node) -> None:
    async with node.serving():
        await node.create("vault", Purpose.DATA)
        handle = (await node.issue("vault")).token
        check_done(await node.ask(node.use_of(handle, Mac(message=b"m"), "data.mac")))
        key = await shown(node, "keys", "vault")
    assert key["versions"][0]["public_pem"] == []


async def test_a_registry_that_is_down_is_told(node: Node) -> None:
    async with node.serving():
        node.store.down = True
        answer = await node.ask(Status(1))
        node.store.down = False
        assert isinstance(answer, Refused)
        assert answer.code == "log_unavailable"
