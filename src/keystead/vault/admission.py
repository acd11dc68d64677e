"""The first half of a use: who asks, for what, may they, and was it done before."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from keystead import limits
from keystead.encoding import DECODE_ERRORS
from keystead.errors import CallerError, HandleInvalid, KeysteadError, MalformedRequest
from keystead.keys.epochs import check_idempotent
from keystead.keys.framing.base import Facts
from keystead.keys.framing.ca import SignCa
from keystead.keys.framing.data import Derive, Mac, Unwrap, Wrap, check_data, decode_wrapped
from keystead.keys.model import Key
from keystead.keys.operations import FACTS, facts_type
from keystead.keys.purposes import Purpose, check_operation
from keystead.keys.rollout.choosing import chosen, served
from keystead.keys.rollout.model import Rollout, live
from keystead.keys.use import decide_use
from keystead.ports import IdempotencyRow, Registry
from keystead.vault.grants import Grants
from keystead.vault.macs import VaultSecrets
from keystead.vault.proofs import bearer_of
from keystead.vault.running import Running
from keystead.vault.standing import Standing

__all__ = ["Admission"]

_DECODERS = {pair: msgspec.msgpack.Decoder(kind) for pair, kind in FACTS.items()}


class Admission:
    """Decides a use on the current snapshot; the commit decides again if the epoch moves."""

    def __init__(
        self, standing: Standing, grants: Grants, registry: Registry, secrets: VaultSecrets
    ) -> None:
        self._standing = standing
        self._grants = grants
        self._registry = registry
        self._secrets = secrets

    def admit(self, running: Running) -> None:
        """Fill in handle, key, facts, version and algorithm.

        Raises:
            CallerError: the rule that the use breaks.
            StateRolledBack: the registry was altered.
        """
        self._standing.check_use()
        use, snapshot = running.use, self._standing.snapshot
        _check_texts(running)
        running.held = held = self._grants.get(use.handle)
        body = held.grant.body
        key = snapshot.key(body.key_id)
        if held.issued.key_id != key.id:
            raise HandleInvalid("the handle names another key than it was issued for")
        running.key = key
        running.epoch = snapshot.epoch
        check_operation(key.purpose, use.purpose, use.operation)
        running.facts = facts = _decode_facts(running)
        running.bearer = bearer = bearer_of(
            use,
            running.asked,
            held.grant,
            deployment=self._standing.deployment,
            now_ms=running.now_ms,
        )
        if isinstance(facts, Unwrap):  # what is wrapped names its version; the proof was over 0
            version = decode_wrapped(facts.wrapped).version
            running.asked = msgspec.structs.replace(running.asked, version=version)
        if isinstance(facts, SignCa) and facts.crl is not None:
            running.asked = msgspec.structs.replace(running.asked, revokes=True)
        rotation = snapshot.rotations.get(key.id)
        rollout = live(rotation)
        running.chosen = None  # it may be here again, after the rollout has ended
        if rollout is not None and not running.asked.version:
            running.chosen = chosen(key, rotation, self._subject(running, key, rollout))
        decided = decide_use(
            held.grant,
            key,
            running.asked,
            bearer,
            now_ms=running.now_ms,
            revoked=snapshot.revoked,
            stopped=snapshot.stopped,
            rotation=rotation,
            chosen=running.chosen,
        )
        running.version, running.algorithm = decided.version, decided.algorithm

    def refused_by_next(self, running: Running, error: KeysteadError) -> str | None:
        """Whom the new version of a rollout refused and the previous one would have served."""
        key, held, first = running.key, running.held, running.chosen
        if key is None or held is None or first is None:
            return None
        snapshot = self._standing.snapshot
        rotation = snapshot.rotations.get(key.id)
        rollout = live(rotation)
        if rollout is None or first != rollout.next or not isinstance(error, CallerError):
            return None
        with suppress(KeysteadError):
            if rollout.previous in served(key, rotation):
                decide_use(
                    held.grant,
                    key,
                    running.asked,
                    running.bearer,
                    now_ms=running.now_ms,
                    revoked=snapshot.revoked,
                    stopped=snapshot.stopped,
                    rotation=rotation,
                    chosen=rollout.previous,
                )
                return held.issued.principal
        return None

    def _subject(self, running: Running, key: Key, rollout: Rollout) -> bytes:
        """Where the use falls: by its context, or by itself, for life of the rollout."""
        by_use = rollout.plan.canary.by == "use"
        named = running.request_id if by_use else running.asked.context
        return self._secrets.subject(key.id, rollout.number, named.encode())

    def replay(self, running: Running) -> IdempotencyRow | None:
        """The stored outcome if this request was done before; sets the idempotency triple.

        Raises:
            ReplayConflict: its idempotency key was used for another payload.
        """
        use, held = running.use, running.held
        if use.idempotency_key is None or held is None:
            return None
        scope = held.grant.chain_id
        fingerprint = self._secrets.fingerprint(
            use.purpose.encode(),
            use.operation.encode(),
            use.context.encode(),
            str(use.version).encode(),
            use.facts,
        )
        running.idempotency = (scope, use.idempotency_key, fingerprint)
        stored = self._registry.idempotent_at_hand(scope, use.idempotency_key)
        if stored is None or not check_idempotent(stored, fingerprint):
            return None
        return self._secrets.open_outcome(stored)


def _decode_facts(running: Running) -> Facts:
    use = running.use
    facts_type(use.purpose, use.operation)  # raises with the list of what there is
    try:
        facts = _DECODERS[use.purpose, use.operation].decode(use.facts)
    except DECODE_ERRORS as exc:
        raise MalformedRequest(
            f"expected the facts of {use.purpose}/{use.operation}, met other fields or values",
            hint="docs/purposes.md lists them",
        ) from exc
    if use.purpose == Purpose.DATA and isinstance(facts, Wrap | Unwrap | Derive | Mac):
        check_data(facts)
    return facts


def _check_texts(running: Running) -> None:
    use = running.use
    key = use.idempotency_key
    if key is not None and not (
        0 < len(key) <= limits.IDEMPOTENCY_KEY_BYTES_MAX and key.isascii() and key.isprintable()
    ):
        raise MalformedRequest(
            f"expected an idempotency key of 1 to {limits.IDEMPOTENCY_KEY_BYTES_MAX} printable"
            " ASCII characters"
        )
    if use.reason is not None and (
        not use.reason.isprintable() or len(use.reason.encode()) > limits.REASON_BYTES_MAX
    ):
        raise MalformedRequest(
            f"expected a printable reason of at most {limits.REASON_BYTES_MAX} bytes"
        )
