"""The methods of both clients, once: each name stands for a function that makes a call.

``Client.sign_jwt`` takes what ``operations.sign_jwt`` takes and returns what running the call
gives; ``AsyncClient.sign_jwt`` takes the same and returns an awaitable of it. The types say so too.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Coroutine
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

from keystead.client import admin, operations, published, revoking, rollouts
from keystead.client.core import Call

__all__ = ["AwaitingRunner", "BlockingRunner", "Method", "Methods"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class BlockingRunner:
    """Runs calls by blocking."""

    @abstractmethod
    def run(self, call: Call[T]) -> T:
        """Run a call to its end."""
        raise NotImplementedError


class AwaitingRunner:
    """Runs calls by awaiting."""

    @abstractmethod
    async def run(self, call: Call[T]) -> T:
        """Run a call to its end."""
        raise NotImplementedError


class Method(Generic[P, R]):
    """A method that makes its call and has its client run it."""

    def __init__(self, make: Callable[P, Call[R]]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, client: None, owner: type[object]) -> Self: ...

    @overload
    def __get__(self, client: BlockingRunner, owner: type[object]) -> Callable[P, R]: ...

    @overload
    def __get__(
        self, client: AwaitingRunner, owner: type[object]
    ) -> Callable[P, Coroutine[Any, Any, R]]: ...

    def __get__(
        self, client: BlockingRunner | AwaitingRunner | None, owner: type[object]
    ) -> object:
        if client is None:
            return self
        make, run = self._make, client.run

        def method(*args: P.args, **kwargs: P.kwargs) -> R | Coroutine[Any, Any, R]:
            return run(make(*args, **kwargs))

        update_wrapper(method, make)
        return method


class Methods:
    """One line a method; the modules of the functions say what each takes, gives and raises."""

    # uses of keys, under a handle
    sign_tls = Method(operations.sign_tls)
    sign_ca = Method(operations.sign_ca)
    sign_jwt = Method(operations.sign_jwt)
    sign_firmware = Method(operations.sign_firmware)
    append_ledger = Method(operations.append_ledger)
    sign_ssh_ca = Method(operations.sign_ssh_ca)
    wrap = Method(operations.wrap)
    unwrap = Method(operations.unwrap)
    derive = Method(operations.derive)
    mac = Method(operations.mac)
    batch = Method(operations.batch)
    # what relying parties tell of a key, under a handle
    report_failure = Method(rollouts.report_failure)
    acknowledge_key = Method(rollouts.acknowledge_key)
    # what anyone may read
    public_key = Method(admin.public_key)
    jwks = Method(admin.jwks)
    certificate = Method(admin.certificate)
    log_checkpoint = Method(published.log_checkpoint)
    log_vkey = Method(published.log_vkey)
    log_proof = Method(published.log_proof)
    log_tile = Method(published.log_tile)
    # what operators may do
    create_key = Method(admin.create_key)
    list_keys = Method(admin.list_keys)
    show_key = Method(admin.show_key)
    move_version = Method(admin.move_version)
    rotate_key = Method(admin.rotate_key)
    rollout_status = Method(admin.rollout_status)
    steer_rollout = Method(admin.steer_rollout)
    rollout_evidence = Method(admin.rollout_evidence)
    set_plan = Method(admin.set_plan)
    change_policy = Method(admin.change_policy)
    history = Method(admin.history)
    issue_handle = Method(admin.issue_handle)
    show_handle = Method(admin.show_handle)
    revoke_handle = Method(admin.revoke_handle)
    revoke_key_handles = Method(admin.revoke_key_handles)
    revoke = Method(revoking.revoke)
    preview_revoke = Method(revoking.preview_revoke)
    emergency_stop = Method(revoking.emergency_stop)
    emergency_end = Method(revoking.emergency_end)
    emergency_status = Method(revoking.emergency_status)
    limit_tenant = Method(admin.limit_tenant)
    list_tenants = Method(admin.list_tenants)
    log = Method(admin.log)
    search_log = Method(admin.search_log)
    count_log = Method(admin.count_log)
    disclose = Method(admin.disclose)
    forget_records = Method(admin.forget_records)
    reconcile_records = Method(admin.reconcile_records)
    tally_reconciled = Method(admin.tally_reconciled)
    go_on = Method(admin.go_on)
