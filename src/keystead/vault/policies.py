"""Changes of plans and policies: each is compared with what it replaces, and the record says how.

What is weaker has to be said to be meant; two persons come with roles (I7, I8).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from keystead.differences import Difference, is_weaker, worst
from keystead.errors import ApprovalRequired, Conflict
from keystead.keys.administration import check_policy, check_reason
from keystead.keys.model import Key
from keystead.keys.rollout.caching import after_signing, after_telling
from keystead.keys.rollout.commands import ChangedPolicy, ChangePolicy, SetPlan
from keystead.keys.rollout.differ import plan_differences, policy_differences
from keystead.keys.rollout.model import live, rotation_of
from keystead.keys.rollout.plan import check_plan, check_rotates, default_plan
from keystead.ports import Transaction
from keystead.translog.entries import Draft
from keystead.vault.authority import Snapshot, key_row, rotation_row
from keystead.vault.committer import Applied
from keystead.vault.macs import VaultSecrets

__all__ = ["apply_plan", "apply_policy", "check_said", "told"]

_DETAIL_CHARS = 800

Apply = Callable[[Transaction, Snapshot, int, int], Applied]


def apply_plan(command: SetPlan, draft: Draft, secrets: VaultSecrets, now_ms: int) -> Apply:
    """The change that sets the plan of a key's coming rollouts.

    Raises (inside the commit):
        MalformedRequest: the plan is not for this key. ApprovalRequired: it is weaker, unsaid.
        Conflict: it changes nothing.
    """
    check_reason(command.reason)

    def apply(_tx: Transaction, snapshot: Snapshot, epoch: int, _seq: int) -> Applied:
        key = snapshot.named(command.name)
        rotation = rotation_of(snapshot.rotations.get(key.id), key.id)
        check_rotates(key)
        usual = default_plan(key)
        before = usual if rotation.plan is None else rotation.plan
        after = usual if command.plan is None else command.plan
        check_plan(after, key)
        if command.plan == rotation.plan:
            raise Conflict(f"the plan of {key.name} is that already")
        differences = plan_differences(before, after)
        check_said(differences, "plan", weaker=command.weaker)
        changed = msgspec.structs.replace(
            rotation, plan=command.plan, revision=rotation.revision + 1, epoch=epoch
        )
        changed = after_telling(rotation, changed, key, now_ms)
        return Applied(
            rows=((rotation_row(changed, key.name, secrets), rotation.revision),),
            drafts=(_described(draft, key, changed.revision, command.reason, differences),),
            value=ChangedPolicy(key=key.name, revision=changed.revision, differences=differences),
        )

    return apply


def apply_policy(command: ChangePolicy, draft: Draft, secrets: VaultSecrets, now_ms: int) -> Apply:
    """The change that sets what a key may do beyond its purpose.

    Raises (inside the commit):
        MalformedRequest: not a policy for this key, or not one for its plan.
        ApprovalRequired: it is weaker, unsaid. Conflict: it changes nothing.
    """
    check_reason(command.reason)

    def apply(_tx: Transaction, snapshot: Snapshot, epoch: int, _seq: int) -> Applied:
        key = snapshot.named(command.name)
        check_policy(key.purpose, command.policy, prehashed=key.prehashed)
        if command.policy == key.policy:
            raise Conflict(f"the policy of {key.name} is that already")
        differences = policy_differences(key.policy, command.policy)
        check_said(differences, "policy", weaker=command.weaker)
        changed = msgspec.structs.replace(
            key, policy=command.policy, revision=key.revision + 1, epoch=epoch
        )
        rotation = rotation_of(snapshot.rotations.get(key.id), key.id)
        under_way = live(rotation)
        signed = after_signing(rotation, key, changed, now_ms)
        rows = [(key_row(changed, secrets), key.revision)]
        if signed != rotation:
            signed = msgspec.structs.replace(signed, revision=rotation.revision + 1, epoch=epoch)
            rows.append((rotation_row(signed, key.name, secrets), rotation.revision))
        for plan in (rotation.plan, None if under_way is None else under_way.plan):
            if plan is not None:
                check_plan(plan, changed)  # a drain must outlast what the key signs
        return Applied(
            rows=tuple(rows),
            drafts=(_described(draft, key, changed.revision, command.reason, differences),),
            value=ChangedPolicy(key=key.name, revision=changed.revision, differences=differences),
        )

    return apply


def told(differences: tuple[Difference, ...]) -> str:
    """Differences in the words of a record: the direction of the whole, then each."""
    each = "; ".join(
        f"{item.path}: {item.before or 'none'} -> {item.after or 'none'} ({item.direction})"
        for item in differences
    )
    return f"{worst(differences)}: {each}"[:_DETAIL_CHARS]


def check_said(differences: tuple[Difference, ...], what: str, *, weaker: bool) -> None:
    """What is weaker must be said to be meant (I7).

    Raises:
        ApprovalRequired: it was not.
    """
    if weaker or not is_weaker(differences):
        return
    found = [item for item in differences if item.direction in {"weaker", "incomparable"}]
    raise ApprovalRequired(
        f"the new {what} is weaker: "
        + "; ".join(f"{item.path} {item.before} -> {item.after}: {item.reason}" for item in found),
        hint="If that is meant, say so: `weaker` in the request, --weaker on the command line",
    )


def _described(
    draft: Draft, key: Key, revision: int, reason: str, differences: tuple[Difference, ...]
) -> Draft:
    return msgspec.structs.replace(
        draft,
        key=key.id,
        name=key.name,
        revision=revision,
        purpose=str(key.purpose),
        tenant=key.tenant,
        reason=reason,
        detail=told(differences),
    )
