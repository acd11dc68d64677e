"""Signed revocation lists in the SDK: what was changed, swapped or is older is refused."""

import httpx
import pytest
from nacl.signing import SigningKey

from keystead.client import Client, Retry
from keystead.client.publications import check_list, deny_list_of, revocation_list
from keystead.errors import MalformedRequest, NotFound, SignatureInvalid
from keystead.keys.model import Key
from keystead.keys.purposes import Purpose
from keystead.keys.revocations import ListName, list_bytes, statement_of
from keystead.translog.checkpoints import open_checkpoint
from keystead.translog.heads import Checkpoint
from keystead.translog.notes import (
    ED25519,
    Note,
    VerifierKey,
    encode_note,
    parse_vkey,
    sign_note,
    vkey_of,
)
from unit.client.fake import FakeNode, problem
from unit.keys.sample import key_of

SIGNER = SigningKey(b"\1" * 32)
STRANGER = SigningKey(b"\2" * 32)
ORIGIN = "d1/node-a"


def vkey_for(key: SigningKey = SIGNER, origin: str = ORIGIN) -> VerifierKey:
    return vkey_of(origin, ED25519, bytes(key.verify_key))


def signed(text: str, key: SigningKey = SIGNER, origin: str = ORIGIN) -> bytes:
    def sign(message: bytes) -> bytes:
        return bytes(key.sign(message).signature)

    return encode_note(Note(text, (sign_note(text, vkey_for(key, origin), sign),)))


def published(key: Key | None = None, name: ListName = "deny") -> tuple[bytes, bytes]:
    """A list and its note, as a node gives them."""
    key = key or key_of(Purpose.JWT, epoch=9)
    data = list_bytes(name, key, None, 0)
    return data, signed(statement_of(ORIGIN, key, name, data).encode())


DATA, NOTE = published()


def test_what_the_log_signed_is_taken() -> None:
    said = check_list(DATA, NOTE, vkey_for(), key="shop", name="deny", epoch_at_least=9)
    assert (said.key, said.epoch, said.name, said.origin) == ("shop", 9, "deny", ORIGIN)


OTHERS: dict[str, tuple[bytes, bytes]] = {
    "a tampered list": (DATA.replace(b'"epoch":9', b'"epoch":8'), NOTE),
    "a tampered note": (DATA, NOTE.replace(b"epoch 9", b"epoch 8")),
    "another key's list": published(key_of(Purpose.JWT, epoch=9, name="other")),
    "an older list": published(key_of(Purpose.JWT, epoch=8)),
    "a checkpoint in its place": (DATA, signed(Checkpoint(ORIGIN, 9, bytes(32)).encode())),
    "a note by a stranger": (
        DATA,
        signed(statement_of(ORIGIN, key_of(Purpose.JWT, epoch=9), "deny", DATA).encode(), STRANGER),
    ),
    "a list of another log": (
        DATA,
        signed(statement_of("d1/b", key_of(Purpose.JWT, epoch=9), "deny", DATA).encode()),
    ),
}


@pytest.mark.parametrize("what", OTHERS)
def test_anything_else_is_refused(what: str) -> None:
    data, note = OTHERS[what]
    with pytest.raises(SignatureInvalid):
        check_list(data, note, vkey_for(), key="shop", name="deny", epoch_at_least=9)


def test_another_kind_of_list_is_refused() -> None:
    data, note = published(key_of(Purpose.SSH_CA, epoch=9), "revoked_hosts")
    check_list(data, note, vkey_for(), key="shop", name="revoked_hosts")
    with pytest.raises(SignatureInvalid, match="on the list krl"):
        check_list(data, note, vkey_for(), key="shop", name="krl")


def test_a_statement_is_no_checkpoint() -> None:
    """Not by its origin, and not by its form: whatever a log is called, it reads as none."""
    text = statement_of(ORIGIN, key_of(Purpose.JWT, epoch=9), "deny", DATA).encode()

    for origin in (ORIGIN, f"{ORIGIN}/revocations/shop"):
        with pytest.raises(MalformedRequest, match="size"):
            open_checkpoint(signed(text, origin=origin), vkey_for(origin=origin))


def test_a_note_that_is_none_is_malformed() -> None:
    with pytest.raises(MalformedRequest, match="in a note"):
        check_list(DATA, b"nothing", vkey_for(), key="shop", name="deny")


# --- fetching ------------------------------------------------------------------------------------


def answer(body: bytes) -> httpx.Response:
    return httpx.Response(200, content=body)


def test_list_and_note_are_fetched_and_checked() -> None:
    node = FakeNode(answer(NOTE), answer(DATA))
    with node.client() as client:
        found = client.run(revocation_list("shop", "deny", vkey_for().encode(), epoch_at_least=9))
    assert (found.key, found.name, found.epoch, found.data) == ("shop", "deny", 9, DATA)
    assert deny_list_of(found).denied == ()
    paths = [request.url.path for request in node.requests]
    assert paths == ["/v1/keys/shop/deny.note", "/v1/keys/shop/deny.json"]
    assert node.sent("authorization") == [None, None]


@pytest.mark.parametrize("name", ["krl", "revoked_hosts"])
def test_each_list_has_its_own_path(name: ListName) -> None:
    data, note = published(key_of(Purpose.SSH_CA, epoch=3), name)
    node = FakeNode(answer(note), answer(data))
    with node.client() as client:
        assert client.run(revocation_list("shop", name, vkey_for().encode())).epoch == 3
    paths = [request.url.path for request in node.requests]
    assert paths == [f"/v1/keys/shop/{name}.note", f"/v1/keys/shop/{name}"]


def test_a_change_between_the_two_answers_is_asked_again_past_caches() -> None:
    newer, newer_note = published(key_of(Purpose.JWT, epoch=10))
    node = FakeNode(answer(NOTE), answer(newer), answer(newer_note), answer(newer))
    with node.client() as client:
        assert client.run(revocation_list("shop", "deny", vkey_for().encode())).epoch == 10
    assert node.sent("cache-control") == [None, None, "no-cache", "no-cache"]


def test_what_does_not_fit_twice_is_refused() -> None:
    old, old_note = published(key_of(Purpose.JWT, epoch=8))
    node = FakeNode(*[answer(old_note), answer(old)] * 2)
    call = revocation_list("shop", "deny", vkey_for().encode(), epoch_at_least=9)
    with node.client() as client, pytest.raises(SignatureInvalid, match="older list was put"):
        client.run(call)
    assert len(node.requests) == 4


def test_a_key_without_such_a_list_is_told() -> None:
    node = FakeNode(problem("not_found", status=404))
    with node.client() as client, pytest.raises(NotFound):
        client.run(revocation_list("shop", "krl", vkey_for().encode()))


def test_a_text_that_is_no_verifier_key_is_refused_before_anything_is_sent() -> None:
    assert parse_vkey(vkey_for().encode()) == vkey_for()
    with pytest.raises(MalformedRequest, match="verifier key"):
        revocation_list("shop", "krl", "nothing")


def fetch_of_two(node: FakeNode) -> bytes:
    call = revocation_list("shop", "deny", vkey_for().encode(), epoch_at_least=9)
    urls = ["https://b.example", "https://a.example"]
    retry = Retry(tries_max=1)
    with Client(urls, retry=retry, transport=httpx.MockTransport(node)) as client:
        return client.run(call).data


def test_a_list_that_another_node_signed_is_asked_of_the_next_front() -> None:
    text = statement_of("d1/node-b", key_of(Purpose.JWT, epoch=9), "deny", DATA).encode()
    theirs = signed(text, STRANGER, "d1/node-b")
    node = FakeNode(*[answer(theirs), answer(DATA)] * 2, answer(NOTE), answer(DATA))
    assert fetch_of_two(node) == DATA
    assert [request.url.host for request in node.requests] == ["b.example"] * 4 + ["a.example"] * 2


@pytest.mark.parametrize("other", [[httpx.ConnectError("gone")], [answer(NOTE), answer(b"{}")] * 2])
def test_a_forged_list_stays_forged_whatever_other_fronts_say(
    other: list[httpx.Response | Exception],
) -> None:
    forged = DATA.replace(b'"epoch":9', b'"epoch":8')
    node = FakeNode(*[answer(NOTE), answer(forged)] * 2, *other)
    with pytest.raises(SignatureInvalid, match=r"none of 2 fronts did it: https://b\.example: "):
        fetch_of_two(node)
