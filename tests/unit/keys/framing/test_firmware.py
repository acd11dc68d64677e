"""Firmware: the manifest's exact bytes, and a counter per name that only ever grows a little."""

import json

import msgspec
import pytest

from keystead.errors import Conflict, LimitExceeded, MalformedRequest, PermissionDenied
from keystead.keys.framing.base import Framed
from keystead.keys.framing.firmware import FIRMWARE, FirmwareResult, SignFirmware
from keystead.keys.model import Key, Policy
from keystead.keys.purposes import Purpose
from unit.keys.sample import key_of, scene_of

KEY = key_of(Purpose.FIRMWARE)
IMAGE = SignFirmware(name="router", version=3, sha256=b"\xab" * 32, size=1000)
DUAL = "dual-ecdsa-p256-ml-dsa-65"


def facts(**changes: object) -> SignFirmware:
    return msgspec.structs.replace(IMAGE, **changes)


def frame(image: SignFirmware = IMAGE, counter: bytes | None = None, key: Key = KEY) -> Framed:
    return FIRMWARE.frame(image, scene_of(key, counter=counter))


def after(image: SignFirmware, counter: bytes | None = None) -> bytes:
    step = frame(image, counter).step
    assert step is not None
    assert step.old == counter
    return step.new


def test_the_manifest_is_canonical_and_names_key_and_algorithms() -> None:
    framed = frame()
    assert framed.message == (
        b'{"algorithms":["ecdsa-p256-sha256"],"key":"kid-1","name":"router","sha256":"'
        + b"ab" * 32
        + b'","size":1000,"type":"keystead-firmware-v1","version":3}'
    )
    assert framed.finish((b"sig",)) == FirmwareResult(
        manifest=framed.message, signatures={"ecdsa-p256-sha256": b"sig"}
    )


def test_a_dual_manifest_binds_both_algorithms_so_that_none_is_stripped() -> None:
    framed = frame(key=key_of(Purpose.FIRMWARE, DUAL))
    components = ["ecdsa-p256-sha256", "ml-dsa-65"]
    assert json.loads(framed.message)["algorithms"] == components
    result = framed.finish((b"a", b"b"))
    assert isinstance(result, FirmwareResult)
    assert result.signatures == dict(zip(components, (b"a", b"b"), strict=True))
    with pytest.raises(ValueError, match="zip"):
        framed.finish((b"a",))


def test_each_name_has_a_counter_of_its_own() -> None:
    names = {FIRMWARE.counter_name(facts(name=name)) for name in ("router", "camera")}
    assert names == {"firmware/router", "firmware/camera"}
    step = frame().step
    assert step is not None
    assert step.name == FIRMWARE.counter_name(IMAGE)


def test_the_identical_image_may_be_signed_again_and_moves_nothing() -> None:
    counter = after(IMAGE)
    assert after(IMAGE, counter) == counter
    assert frame(IMAGE, counter).message == frame().message


@pytest.mark.parametrize(
    "changes",
    [{"version": 2}, {"version": 1}, {"sha256": b"\xac" * 32}, {"size": 1001}],
)
def test_a_version_that_is_not_greater_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(Conflict, match="router is at version 3"):
        frame(facts(**changes), after(IMAGE))


def test_an_older_identical_image_is_refused_too() -> None:
    counter = after(facts(version=4), after(IMAGE))
    with pytest.raises(Conflict):
        frame(IMAGE, counter)


def test_a_version_grows_by_a_bounded_step() -> None:
    counter = after(IMAGE)
    assert after(facts(version=13), counter)
    with pytest.raises(LimitExceeded, match="by 10 at most, from 3"):
        frame(facts(version=14), counter)
    with pytest.raises(LimitExceeded, match="from 0"):
        frame(facts(version=11))


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": b""},
        {"sha256": bytes(31)},
        {"sha256": bytes(64)},
        {"version": 0},
        {"version": -1},
        {"version": 2**53},
        {"size": -1},
        {"size": 2**53},
    ],
)
def test_a_manifest_has_bounds(changes: dict[str, object]) -> None:
    with pytest.raises(MalformedRequest):
        frame(facts(**changes))


def test_only_names_of_the_list_are_signed() -> None:
    for name in ("toaster", "", "router ", "x" * 1000):
        with pytest.raises(PermissionDenied) as refused:
            frame(facts(name=name))
        assert refused.value.hint == "Its names are: router, camera"
    with pytest.raises(PermissionDenied):
        frame(key=key_of(Purpose.FIRMWARE, policy=Policy()))
