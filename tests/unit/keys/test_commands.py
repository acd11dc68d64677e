"""Commands on the wire: one tag each, frozen, nothing unknown taken."""

from typing import get_args

import msgspec
import pytest

from keystead.keys.commands import Command, CreateKey, IssueHandle, MoveVersion
from keystead.keys.lifecycle import Move
from keystead.keys.model import JwtPolicy, Policy
from keystead.keys.narrowing import Narrowing, RateLimit
from keystead.keys.purposes import Purpose

DECODER: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)
MINIMAL: dict[str, dict[str, object]] = {
    "key.create": {"name": "shop", "purpose": "jwt"},
    "key.list": {},
    "key.show": {"name": "shop"},
    "key.move": {"name": "shop", "move": "suspend", "reason": "test"},
    "handle.issue": {"key": "shop", "principal": "web"},
    "handle.revoke": {"link": "00", "reason": "test"},
    "handle.revoke_all": {"key": "shop", "reason": "test"},
    "handle.show": {"handle_id": "h-1"},
    "log.search": {},
    "log.count": {"by": "key"},
    "log.disclose": {"seq": 7},
    "log.forget": {"reason": "test"},
    "log.go_on": {"reason": "test"},
    "log.reconcile": {"key": "shop"},
    "key.rotate": {"name": "shop", "reason": "test"},
    "key.steer": {"name": "shop", "move": "pause", "reason": "test"},
    "key.plan": {"name": "shop", "plan": None, "reason": "test"},
    "key.policy": {"name": "shop", "policy": {}, "reason": "test"},
    "key.status": {"name": "shop"},
    "key.evidence": {"name": "shop"},
    "history.list": {},
    "tenant.limit": {"tenant": "shop", "count": 100, "reason": "test"},
    "tenant.list": {},
    "revoke": {"reason": "test"},
    "revoke.preview": {},
    "emergency.stop": {"tenant": None, "reason": "test"},
    "emergency.end": {"tenant": "shop", "reason": "test"},
    "emergency.show": {},
}


def decode(tag: str, **members: object) -> Command:
    return DECODER.decode(msgspec.json.encode({"do": tag, **members}))


def test_the_tags_are_frozen() -> None:
    tags = {struct.__struct_config__.tag for struct in get_args(Command)}
    assert tags == set(MINIMAL)


@pytest.mark.parametrize("tag", MINIMAL)
def test_a_command_comes_back_as_it_went(tag: str) -> None:
    command = decode(tag, **MINIMAL[tag])
    assert command.__struct_config__.tag == tag
    packed = msgspec.msgpack.encode(command)
    assert msgspec.msgpack.decode(packed, type=Command) == command
    with pytest.raises(AttributeError):
        setattr(command, (*command.__struct_fields__, "other")[0], "other")


@pytest.mark.parametrize("tag", MINIMAL)
def test_a_command_takes_no_unknown_and_lacks_no_needed_member(tag: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `force`"):
        decode(tag, **MINIMAL[tag], force=True)
    for left_out in MINIMAL[tag]:
        rest = {name: value for name, value in MINIMAL[tag].items() if name != left_out}
        with pytest.raises(msgspec.ValidationError, match=f"missing required field `{left_out}`"):
            decode(tag, **rest)


@pytest.mark.parametrize("tag", ["", "key.export", "KEY.CREATE"])
def test_there_is_no_other_command(tag: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="Invalid value"):
        decode(tag, name="shop")


def test_members_have_their_types() -> None:
    policy = {"jwt": {"issuer": "https://id.example"}}
    created = decode("key.create", name="shop", purpose="jwt", policy=policy)
    assert created == CreateKey(
        name="shop",
        purpose=Purpose.JWT,
        policy=Policy(jwt=JwtPolicy(issuer="https://id.example")),
    )
    move = decode("key.move", name="shop", move="destroy", version=2, reason="old")
    assert move == MoveVersion(name="shop", move=Move.DESTROY, version=2, reason="old")
    narrowing = {"uses": 3, "rate": {"count": 5}}
    assert decode("handle.issue", key="shop", principal="web", narrowing=narrowing) == IssueHandle(
        key="shop", principal="web", narrowing=Narrowing(uses=3, rate=RateLimit(count=5))
    )


@pytest.mark.parametrize(
    ("tag", "members"),
    [
        ("key.create", {"name": "shop", "purpose": "email"}),
        ("key.create", {"name": "shop", "purpose": "jwt", "prehashed": 1}),
        ("key.create", {"name": "shop", "purpose": "jwt", "policy": {"ack": "never"}}),
        ("key.create", {"name": "shop", "purpose": "jwt", "policy": {"export": True}}),
        ("key.move", {"name": "shop", "move": "export", "reason": "x"}),
        ("handle.issue", {"key": "s", "principal": "w", "narrowing": {"nothing": 1}}),
        ("handle.issue", {"key": "s", "principal": "w", "narrowing": {"uses": "3"}}),
    ],
)
def test_a_value_of_another_kind_is_refused(tag: str, members: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode(tag, **members)
