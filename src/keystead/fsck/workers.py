"""Several processes that look at stretches of a log, whose results come in order.

One is started as ``python -m keystead.fsck.workers``; what it is asked and what it answers are
msgpack behind its length, on stdin and stdout. It ends when nobody asks any more, so also when who
started it was killed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import IO, TypeVar

import msgspec

from keystead.errors import KeysteadError, LogUnavailable, StartupError
from keystead.fsck.chunks import Chunk, Chunks, Place

__all__ = ["looked_at", "main"]

_AHEAD = 2
"""Stretches that a process has to do at a time, so that it never waits."""
_NICE = 10
_LENGTH_BYTES = 4

Stretch = tuple[int, int]
T = TypeVar("T")


class _Failed(msgspec.Struct, tag=True):
    """Why a process can look no further; ``busy``: it may be able to later."""

    message: str
    hint: str
    busy: bool


class _Found(msgspec.Struct, tag=True):
    chunk: Chunk


def looked_at(place: Place, stretches: Iterable[Stretch], processes: int) -> Iterator[Chunk]:
    """Each stretch as it was found, in order; with one process in this one.

    Raises:
        StartupError, LogUnavailable: the database cannot be asked any more.
    """
    if processes > 1:
        yield from _by_others(place, stretches, processes)
        return
    with closing(Chunks(place)) as chunks:
        for first, stop in stretches:
            yield chunks.look(first, stop)


# --- the one who asks ----------------------------------------------------------------------------


class _Worker:
    """One process, with a pipe either way."""

    def __init__(self, place: Place) -> None:
        # In a session of its own: what a terminal sends to all, the one who asks must handle.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "keystead.fsck.workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._ask(place)

    def _ask(self, question: object) -> None:
        if self._process.stdin is not None:
            try:
                _write(self._process.stdin, question)
            except BrokenPipeError:
                return  # its answer, or that there is none, tells why

    def begin(self, stretch: Stretch) -> None:
        """Have it look at a stretch."""
        self._ask(stretch)

    def result(self) -> Chunk:
        """What it found in the oldest stretch that it was given."""
        answer: _Found | _Failed | None = None
        if self._process.stdout is not None:
            answer = _read(self._process.stdout, _ANSWERS)
        match answer:
            case _Found(chunk):
                return chunk
            case _Failed(message, hint, busy):
                raise (LogUnavailable if busy else StartupError)(message, hint=hint)
        raise StartupError(
            "a process that looked at the log ended by itself",
            hint="Was it killed for want of memory? Run it again with --processes 1",
        )

    def end(self) -> None:
        """End it, and wait for it."""
        self._process.terminate()
        self._process.communicate()


def _by_others(place: Place, stretches: Iterable[Stretch], processes: int) -> Iterator[Chunk]:
    workers: list[_Worker] = []
    waiting: deque[_Worker] = deque()
    try:
        workers += [_Worker(place) for _ in range(processes)]
        for turn, stretch in enumerate(stretches):
            if len(waiting) == _AHEAD * len(workers):
                yield waiting.popleft().result()
            worker = workers[turn % len(workers)]
            worker.begin(stretch)
            waiting.append(worker)
        while waiting:
            yield waiting.popleft().result()
    finally:
        for worker in workers:
            worker.end()


# --- the one who is asked ------------------------------------------------------------------------


def main() -> None:
    """Answer until nobody asks."""
    os.nice(_NICE)  # the node goes first
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    place = _read(questions, msgspec.msgpack.Decoder(Place))
    if place is None:
        return
    try:
        with closing(Chunks(place)) as chunks:
            while (stretch := _read(questions, _STRETCHES)) is not None:
                _write(answers, _Found(chunks.look(*stretch)))
    except KeysteadError as exc:
        _write(answers, _Failed(exc.message, exc.hint, isinstance(exc, LogUnavailable)))
    except BrokenPipeError:
        os._exit(0)  # nobody reads any more: not even what would be flushed at the end


_ANSWERS: msgspec.msgpack.Decoder[_Found | _Failed] = msgspec.msgpack.Decoder(_Found | _Failed)
_STRETCHES: msgspec.msgpack.Decoder[Stretch] = msgspec.msgpack.Decoder(Stretch)


def _write(file: IO[bytes], value: object) -> None:
    data = msgspec.msgpack.encode(value)
    file.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
    file.flush()


def _read(file: IO[bytes], decoder: msgspec.msgpack.Decoder[T]) -> T | None:
    head = file.read(_LENGTH_BYTES)
    size = int.from_bytes(head, "big")
    data = file.read(size)
    return decoder.decode(data) if data and len(data) == size else None


if __name__ == "__main__":
    main()
