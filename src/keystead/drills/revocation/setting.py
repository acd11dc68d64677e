"""What a drill of revocations works on: its keys and handles, made before and ended after."""

from __future__ import annotations

import msgspec

from keystead.client import AsyncClient, Issued, Narrowing
from keystead.drills.revocation.targets import WORKS, Target, Work, key_name
from keystead.errors import KeysteadError
from keystead.keys.model import JwtPolicy, Policy

__all__ = ["TENANT", "Setting", "end_use", "make"]

TENANT = "drill"
_ISSUER = "https://drill.keystead.invalid"
"""A name of nobody's (RFC 2606 section 2)."""
_LIFETIME_S = 60


class Setting(msgspec.Struct, kw_only=True):
    """Handles by target, and those that nobody revokes, with their work. ``keys``: all names."""

    run: str
    handles: dict[int, Issued] = {}
    steady: list[tuple[Work, Issued]] = []
    keys: list[str] = []

    @property
    def context(self) -> str:
        """Of all uses."""
        return f"drill/{self.run}"


async def make(client: AsyncClient, setting: Setting, targets: tuple[Target, ...]) -> None:
    """Make what the drill needs; ``setting`` is filled as it comes, so that it can be ended.

    Raises:
        KeysteadError: the node refused it.
    """
    for work in WORKS:
        name = key_name(setting.run, work, "shared")
        await _key(client, setting, name, work)
        setting.steady.append((work, await _issue(client, setting, name)))
    for target in targets:
        if target.key not in setting.keys:
            await _key(client, setting, target.key, target.work)
        setting.handles[target.number] = await _issue(client, setting, target.key)


async def _key(client: AsyncClient, setting: Setting, name: str, work: Work) -> None:
    jwt = JwtPolicy(issuer=_ISSUER, lifetime_max_s=_LIFETIME_S) if work.purpose == "jwt" else None
    setting.keys.append(name)
    await client.create_key(
        name,
        work.purpose,
        tenant=TENANT,
        labels={"drill": setting.run},
        policy=Policy(ack=work.ack, jwt=jwt),
    )


async def _issue(client: AsyncClient, setting: Setting, name: str) -> Issued:
    narrowing = Narrowing(context_prefix=setting.context)
    return await client.issue_handle(name, f"drill-{setting.run}", narrowing=narrowing)


async def end_use(client: AsyncClient, setting: Setting) -> str:
    """Revoke all handles, destroy all versions; says what is left."""
    reason = f"drill {setting.run} is over"
    undone: list[str] = []
    for name in setting.keys:
        try:
            await client.revoke_key_handles(name, reason=reason)
            shown = await client.show_key(name)
            if shown.versions[0].state != "compromised":
                await client.move_version(name, "deactivate", reason=reason)
            await client.move_version(name, "destroy", reason=reason)
        except KeysteadError as exc:
            undone.append(f"{name}: {exc.message}")
    kept = f"{len(setting.keys)} keys of tenant {TENANT}, named drill-{setting.run}-..."
    if undone:
        return f"{kept}, of which {len(undone)} could not be ended: {'; '.join(undone[:3])}"
    return f"{kept}, every version destroyed and every handle revoked; and what the log recorded"
