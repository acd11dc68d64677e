"""One admin request on its way: who asks, what for, and where the one answer goes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from keystead.encoding import DECODE_ERRORS
from keystead.errors import KeysteadError, MalformedRequest
from keystead.frames.messages import Answer, Done, Receipt, Refused
from keystead.keys.commands import Command
from keystead.keys.model import Principal
from keystead.vault.committer import Committed
from keystead.vault.repeats import Once

__all__ = ["Reply", "Request", "decode_command", "tag_of"]

Reply = Callable[[Answer], None]
_COMMAND = msgspec.msgpack.Decoder(Command)


class Request:
    """One admin request.

    ``began_us``: when it was taken, by the clock that measures. ``starts_in``: the tenant in which
    it would start something, if it would.
    """

    def __init__(
        self, number: int, reply: Reply, request_id: str, *, node: str, began_us: int
    ) -> None:
        self._number = number
        self._node = node
        self._reply = reply
        self.request_id = request_id
        self.began_us = began_us
        self.principal: Principal | None = None
        self.command: Command | None = None
        self.once: Once | None = None
        self.starts_in: str | None = None

    @property
    def tag(self) -> str:
        """What is asked for, as records and metrics name it; empty: nobody knows yet."""
        return "" if self.command is None else tag_of(self.command)

    def done(self, value: object, place: Committed | None = None) -> None:
        """Answer; ``place``: of the change's record."""
        receipt = None if place is None else self.receipt(place)
        self._reply(Done(self._number, msgspec.msgpack.encode(value), receipt))

    def done_again(self, result: bytes, receipt: Receipt) -> None:
        """Give the answer that was given before."""
        self._reply(Done(self._number, result, receipt))

    def receipt(self, place: Committed) -> Receipt:
        """Where the change stands."""
        return Receipt(
            seq=place.seq,
            epoch=place.epoch,
            key="",
            version=0,
            kid="",
            algorithm="",
            ack="durable",
            request_id=self.request_id,
            node=self._node,
        )

    def refuse(self, error: KeysteadError) -> None:
        """Answer with a problem."""
        self._reply(
            Refused(
                self._number,
                error.code or "internal",
                error.message,
                error.hint,
                error.retry_after_s,
                self.request_id,
            )
        )


def decode_command(data: bytes) -> Command:
    """A command out of its frame.

    Raises:
        MalformedRequest: none that there is.
    """
    try:
        command: Command = _COMMAND.decode(data)
    except DECODE_ERRORS as exc:
        raise MalformedRequest("expected an admin command, met other fields or values") from exc
    return command


def tag_of(command: Command) -> str:
    """A command's name."""
    return str(command.__struct_config__.tag)
