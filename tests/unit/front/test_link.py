from __future__ import annotations

import asyncio

import pytest

from keystead import limits
from keystead.frames.messages import Answer, Done, Refused, Request, Status, Use
from keystead.net.link import VaultLink
from unit.front.fake_vault import FakeVault, done

pytestmark = pytest.mark.anyio


def status(link: VaultLink) -> Status:
    return Status(link.take_id())


def use(link: VaultLink, facts: bytes = b"") -> Use:
    return Use(link.take_id(), "ks1.x", "jwt", "sign", "web", facts)


async def test_calls_of_one_turn_travel_in_one_frame(vault: FakeVault, link: VaultLink) -> None:
    answers = await asyncio.gather(*(link.call(use(link)) for _ in range(50)))
    assert [len(frame) for frame in vault.frames] == [50]
    assert [answer.id for answer in answers] == [request.id for request in vault.requests]


async def test_answers_of_many_keep_the_order_of_requests(
    vault: FakeVault, link: VaultLink
) -> None:
    requests = [use(link) for _ in range(20)]
    answers = await link.call_many(requests)
    assert [answer.id for answer in answers] == [request.id for request in requests]
    assert [len(frame) for frame in vault.frames] == [20]


async def test_no_requests_are_no_frame(vault: FakeVault, link: VaultLink) -> None:
    assert await link.call_many([]) == []
    assert isinstance(await link.call(status(link)), Done)
    assert len(vault.frames) == 1


async def test_a_frame_holds_no_more_requests_than_its_limit(
    vault: FakeVault, link: VaultLink
) -> None:
    groups = [[use(link) for _ in range(3000)] for _ in range(2)]
    await asyncio.gather(*(link.call_many(group) for group in groups))
    assert [len(frame) for frame in vault.frames] == [3000, 3000]


async def test_a_frame_holds_no_more_bytes_than_its_limit(
    vault: FakeVault, link: VaultLink
) -> None:
    half = bytes(limits.FRAME_BYTES_MAX // 2)
    answers = await asyncio.gather(*(link.call(use(link, half)) for _ in range(3)))
    assert all(isinstance(answer, Done) for answer in answers)
    assert [len(frame) for frame in vault.frames] == [1, 1, 1]


async def test_one_group_that_does_not_fit_is_spread(vault: FakeVault, link: VaultLink) -> None:
    third = bytes(limits.FRAME_BYTES_MAX // 3)
    answers = await link.call_many([use(link, third) for _ in range(4)])
    assert all(isinstance(answer, Done) for answer in answers)
    assert [len(frame) for frame in vault.frames] == [2, 2]


async def test_a_restart_leaves_the_outcome_unknown(vault: FakeVault, link: VaultLink) -> None:
    vault.hold()
    call = asyncio.create_task(link.call(use(link)))
    await vault.arrived(1)
    vault.drop()
    answer = await call
    assert isinstance(answer, Refused)
    assert answer.code == "log_unavailable"
    assert "outcome is unknown" in answer.message
    assert "idempotency key" in answer.hint


async def test_the_link_comes_back_after_a_restart(vault: FakeVault, link: VaultLink) -> None:
    vault.hold()
    lost = asyncio.create_task(link.call(status(link)))
    await vault.arrived(1)
    await vault.stop()
    assert isinstance(await lost, Refused)
    assert not link.connected
    await vault.release()
    await vault.start()
    answer: Answer | None = None
    while not isinstance(answer, Done):
        await asyncio.sleep(0)
        answer = await link.call(status(link))
    assert link.connects == 2


async def test_without_a_vault_nothing_is_sent_and_the_answer_says_so(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    link = VaultLink(str(tmp_path_factory.mktemp("none") / "vault.sock"))
    await link.start()
    one = await link.call(status(link))
    many = await link.call_many([use(link), use(link)])
    await link.close()
    assert isinstance(one, Refused)
    assert "was not sent" in one.message
    assert [type(answer) for answer in many] == [Refused, Refused]


async def test_a_cancelled_call_is_forgotten(vault: FakeVault, link: VaultLink) -> None:
    vault.hold()
    call = asyncio.create_task(link.call(use(link)))
    await vault.arrived(1)
    call.cancel()
    await asyncio.wait({call})
    await vault.release()
    assert isinstance(await link.call(status(link)), Done)
    assert call.cancelled()


async def test_answers_nobody_asked_for_are_dropped(vault: FakeVault, link: VaultLink) -> None:
    def answer_another(request: Request) -> Answer:
        return Done(request.id + 1000, b"") if isinstance(request, Use) else done(request, None)

    vault.respond = answer_another
    lost = asyncio.create_task(link.call(use(link)))
    await vault.arrived(1)
    assert isinstance(await link.call(status(link)), Done)
    assert not lost.done()
    lost.cancel()
    await asyncio.wait({lost})


@pytest.mark.parametrize("raw", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x01\xc0"])
async def test_a_malformed_frame_ends_the_connection(
    vault: FakeVault, link: VaultLink, raw: bytes
) -> None:
    vault.raw = raw
    answer = await link.call(use(link))
    assert isinstance(answer, Refused)
    assert "outcome is unknown" in answer.message


async def fill(vault: FakeVault, link: VaultLink) -> asyncio.Task[Answer]:
    """A call that the vault does not read, larger than all buffers on the way."""
    assert isinstance(await link.call(status(link)), Done)
    vault.read(on=False)
    call = asyncio.create_task(link.call(use(link, bytes(limits.BODY_BYTES_MAX))))
    await asyncio.sleep(0)  # the call is made in this turn of the loop,
    await asyncio.sleep(0)  # and its frame is written in this one
    assert link.frames_sent == len(vault.frames) + 1
    return call


async def test_what_was_not_sent_is_told_from_what_was(vault: FakeVault, link: VaultLink) -> None:
    sent = await fill(vault, link)
    unsent = asyncio.create_task(link.call(use(link)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    vault.drop()
    first, second = await asyncio.gather(sent, unsent)
    assert isinstance(first, Refused)
    assert isinstance(second, Refused)
    assert "outcome is unknown" in first.message
    assert "was not sent" in second.message


async def test_what_waited_for_the_vault_to_read_goes_in_one_frame(
    vault: FakeVault, link: VaultLink
) -> None:
    large = await fill(vault, link)
    small = [asyncio.create_task(link.call(use(link)))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    small.append(asyncio.create_task(link.call(use(link))))
    await asyncio.sleep(0)
    vault.read(on=True)
    answers = await asyncio.gather(large, *small)
    assert all(isinstance(answer, Done) for answer in answers)
    assert [len(frame) for frame in vault.frames] == [1, 1, 2]


async def test_closing_answers_what_is_open(vault: FakeVault, link: VaultLink) -> None:
    vault.hold()
    call = asyncio.create_task(link.call(use(link)))
    await vault.arrived(1)
    await link.close()
    assert isinstance(await call, Refused)
