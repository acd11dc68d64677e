"""What is demanded of a PostgreSQL server before a record in it counts as durable. Pure.

A commit is durable when it is on the server's disk and, where there are standbys, on that of one
of them: else a fail-over would lose what was answered.
"""

from __future__ import annotations

from typing import NamedTuple

from keystead.errors import StartupError

__all__ = ["FACTS", "ServerFacts", "judged", "protection"]

_OLDEST = 140_000
_STANDBY = "state IS DISTINCT FROM 'backup' AND application_name IS DISTINCT FROM 'pg_receivewal'"
FACTS = (
    "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'),"  # noqa: S608  made of constants
    " current_setting('fsync'), current_setting('full_page_writes'), pg_is_in_recovery(),"
    " current_setting('synchronous_standby_names'),"
    f" (SELECT count(*) FROM pg_stat_replication WHERE {_STANDBY}),"
    " (SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum'))"
)
"""One row; anybody may ask. A role without pg_monitor sees how many standbys there are, and not
which of them are synchronous."""


class ServerFacts(NamedTuple):
    """The row of :data:`FACTS`. ``version``: 150018 is 15.18."""

    version: int
    encoding: str
    fsync: str
    full_page_writes: str
    standby: bool
    synchronous_names: str
    standbys: int
    synchronous: int


def judged(facts: ServerFacts, *, allow_async_standby: bool) -> None:
    """Return if records are durable in it.

    Raises:
        StartupError: they are not; says what to do.
    """
    if facts.version < _OLDEST:
        raise StartupError(
            f"the server is PostgreSQL {facts.version // 10_000}, expected 14 or later",
            hint="Upgrade the database server",
        )
    if facts.encoding != "UTF8":
        raise StartupError(
            f"the database's encoding is {facts.encoding}, expected UTF8",
            hint="Create another: CREATE DATABASE keystead ENCODING 'UTF8' TEMPLATE template0",
        )
    if facts.standby:
        raise StartupError(
            "the server is a standby, which takes no records",
            hint="Have --database lead to the primary, or name all hosts in it",
        )
    for name in ("fsync", "full_page_writes"):
        if getattr(facts, name) != "on":
            raise StartupError(
                f"the server runs with {name} = off: a power cut would lose or damage records"
                " that were answered",
                hint=f"Set {name} = on in postgresql.conf, and reload it",
            )
    if facts.standbys and not facts.synchronous_names and not allow_async_standby:
        raise StartupError(
            f"the server has {facts.standbys} asynchronous standby(s): if one took over, it would"
            " lack records that were answered",
            hint="Set synchronous_standby_names on the server, or accept the loss with"
            " --allow-async-standby",
        )


def protection(facts: ServerFacts) -> str:
    """What a record is protected by, for people."""
    start = f"postgresql {facts.version // 10_000}, synchronous_commit on"
    if facts.synchronous_names:
        if facts.synchronous:
            return f"{start}, {facts.synchronous} synchronous standby(s)"
        return f"{start}, synchronous_standby_names = {facts.synchronous_names}"
    if facts.standbys:
        return (
            f"{start}, {facts.standbys} asynchronous standby(s) accepted: a fail-over loses the"
            " newest records"
        )
    return f"{start}, no standby: a lost disk loses what no backup has"
