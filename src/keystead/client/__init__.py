"""The SDK: use keys by handles, from code that blocks or awaits.

::

    from keystead.client import Client

    with Client("https://keystead.example:8443") as client:
        token = client.sign_jwt(handle, {"sub": "u1"}, context="shop/eu").result.token

Every use has an idempotency key, and is sent again under it until it is answered or its deadline is
near, so it has one effect and one record. Errors are those of ``keystead.errors``. What verifies
without asking a node is in ``keystead.keys.verify``.
"""

from __future__ import annotations

from keystead.client import admin, operations, revoking, rollouts
from keystead.client.admin import Issued
from keystead.client.handles import attenuate, parse_handle
from keystead.client.proof import Bound
from keystead.client.retry import Retry
from keystead.client.transport import AsyncClient, Client
from keystead.client.uses import Batch, Receipt, Use, Used
from keystead.keys.handles import Handle
from keystead.keys.narrowing import Binding, Narrowing, RateLimit

__all__ = [
    "AsyncClient",
    "Batch",
    "Binding",
    "Bound",
    "Client",
    "Handle",
    "Issued",
    "Narrowing",
    "RateLimit",
    "Receipt",
    "Retry",
    "Use",
    "Used",
    "admin",
    "attenuate",
    "operations",
    "parse_handle",
    "revoking",
    "rollouts",
]
