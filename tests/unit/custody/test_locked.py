"""Buffers for secrets: wiped means zeros in the memory itself, and nothing prints them."""

import copy
import ctypes
import gc
import pickle
from pathlib import Path

import pytest

from keystead.custody import locked
from keystead.custody.locked import LockedBuffer, wipe

SECRET = b"secret of 19 bytes!"


def memory_at(address: int, size: int) -> bytes:
    return ctypes.string_at(address, size)


def address_of(buffer: bytearray) -> int:
    return ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))


@pytest.mark.parametrize("size", [0, 1, 31, 4096, 100_000])
def test_wipe_overwrites_in_place(size: int) -> None:
    buffer = bytearray(b"\xff" * size)
    address = address_of(buffer) if size else 0
    wipe(buffer)
    assert buffer == bytes(size)
    assert not size or memory_at(address, size) == bytes(size)


def test_a_wiped_slice_is_its_own_copy() -> None:
    """A slice of a bytearray is new memory: wiping it does not wipe what it was cut from."""
    whole = bytearray(SECRET)
    wipe(whole[:6])
    assert whole == SECRET


def test_taking_wipes_the_source() -> None:
    source = bytearray(SECRET)
    address = address_of(source)
    taken = LockedBuffer.take(source)
    assert taken.data == SECRET
    assert memory_at(address, len(SECRET)) == bytes(len(SECRET))


def test_leaving_the_block_wipes() -> None:
    with LockedBuffer.take(bytearray(SECRET)) as buffer:
        address = address_of(buffer.data)
        assert memory_at(address, len(SECRET)) == SECRET
    assert memory_at(address, len(SECRET)) == bytes(len(SECRET))


def test_an_error_in_the_block_wipes() -> None:
    buffer = LockedBuffer.take(bytearray(SECRET))
    with pytest.raises(RuntimeError), buffer:
        raise RuntimeError
    assert buffer.data == bytes(len(SECRET))


def test_collection_wipes() -> None:
    buffer = LockedBuffer.take(bytearray(SECRET))
    data = buffer.data  # keeps the memory, so that one may look
    del buffer
    gc.collect()
    assert data == bytes(len(SECRET))


def test_the_memory_cannot_move() -> None:
    """A buffer that grew would leave its secret behind where it was."""
    buffer = LockedBuffer.take(bytearray(SECRET))
    with pytest.raises(BufferError):
        buffer.data.extend(b"more")
    with pytest.raises(BufferError):
        buffer.data.clear()
    assert buffer.data == SECRET


def locked_kib() -> int:
    """How much of this process the kernel says is locked (proc_pid_status(5))."""
    [line] = [
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmLck" in line
    ]
    return int(line.split()[1])


def test_it_says_whether_the_kernel_locked_it() -> None:
    before = locked_kib()
    buffer = LockedBuffer(2**20)
    assert buffer.locked == (locked_kib() - before >= 2**10)


def test_it_is_of_use_where_the_kernel_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def mlock(self, _address: object, _size: object) -> int:
            return -1

    monkeypatch.setattr(locked, "_libc", Refusing())
    buffer = LockedBuffer.take(bytearray(SECRET))
    assert (buffer.locked, bytes(buffer.data)) == (False, SECRET)


def test_it_prints_its_length_only() -> None:
    buffer = LockedBuffer.take(bytearray(SECRET))
    for text in (repr(buffer), str(buffer), f"{buffer}"):
        assert text == f"<LockedBuffer of {len(SECRET)} bytes>"


def test_it_is_neither_copied_nor_pickled() -> None:
    buffer = LockedBuffer.take(bytearray(SECRET))
    with pytest.raises(TypeError, match="neither copied"):
        pickle.dumps(buffer)
    with pytest.raises(TypeError, match="neither copied"):
        copy.deepcopy(buffer)
    assert buffer.data == SECRET
