"""A rollout at any of its stages, with nothing on the way there."""

import msgspec

from keystead.keys.model import Key
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.machine import begin
from keystead.keys.rollout.model import Rotation, Stage, Status
from keystead.keys.rollout.plan import WHOLE_PPM
from keystead.keys.rollout.table import Wish
from unit.keys.rollout.scenes import asked, begun_key, plan_of, rotation_before, version_of
from unit.keys.rollout.states import rollout_of

PLAN = plan_of((400_000, 999_999, WHOLE_PPM))
WAY = (
    (Stage.PUBLISH, 0),
    (Stage.CANARY, 0),
    (Stage.RAMP, 0),
    (Stage.RAMP, 1),
    (Stage.RAMP, 2),
    (Stage.PROMOTE, 2),
    (Stage.DRAIN, 2),
)


def at(
    stage: Stage,
    ramp: int = 0,
    *,
    status: Status = Status.RUNNING,
    purpose: Purpose = Purpose.LEDGER,
) -> tuple[Key, Rotation]:
    """A key and its rotation from version 1 to 2, at a stage."""
    key = begun_key(purpose)
    begun = begin(
        rotation_before(key, PLAN), key, version_of(key), PLAN, asked(Wish.RESUME), incident=False
    )
    rollout = msgspec.structs.replace(
        rollout_of(begun.rotation), stage=stage, ramp=ramp, status=status
    )
    promoted = stage not in {Stage.PUBLISH, Stage.CANARY, Stage.RAMP}
    key = msgspec.structs.replace(begun.key, primary=2 if promoted else 1)
    return key, msgspec.structs.replace(begun.rotation, rollout=rollout)
