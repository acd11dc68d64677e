"""Addresses of fronts: one or several, and none that would carry a handle in clear on a network."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final, NamedTuple

import httpx

from keystead.errors import MalformedRequest

__all__ = ["FRONTS_MAX", "Address", "parse_address", "parse_addresses"]

FRONTS_MAX: Final = 32
"""Fronts of one client: each keeps connections of its own, and a deadline is shared among them."""


class Address(NamedTuple):
    """Where a front is: its ``base`` for HTTP, and ``uds``, its unix socket if it has one."""

    base: str
    uds: str | None = None


def parse_addresses(url: str | Sequence[str]) -> dict[str, Address]:
    """The fronts by their addresses as they were given, in that order, each once.

    A string may name several with commas between, as the environment and a command line do; in a
    sequence each item is one, and may hold a comma.

    Raises:
        MalformedRequest: none, too many, or one that is none of the three kinds.
    """
    given = [part.strip() for part in url.split(",")] if isinstance(url, str) else list(url)
    if not 0 < len(given) <= FRONTS_MAX:
        raise MalformedRequest(
            f"expected 1 to {FRONTS_MAX} addresses of fronts, met {len(given)}",
            hint="Name each front once, or put a balancer before them",
        )
    return {one: parse_address(one) for one in given}


def parse_address(url: str) -> Address:
    """``https://host[:port]``, ``unix:/path/of/socket``, or ``http://`` on this machine.

    Raises:
        MalformedRequest: none of the three.
    """
    if url.startswith("unix:"):
        path = url.removeprefix("unix:").removeprefix("//")
        if not path.startswith("/"):
            raise MalformedRequest("expected an absolute path in unix:/path/of/socket")
        return Address("http://keystead", path)
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as exc:
        raise MalformedRequest("expected an address such as https://keystead.example:8443") from exc
    if parsed.userinfo or parsed.query or parsed.fragment or not parsed.host:
        raise MalformedRequest("expected an address of scheme, host and port only")
    if parsed.scheme == "https" or (parsed.scheme == "http" and _is_this_machine(parsed.host)):
        return Address(url)
    raise MalformedRequest(
        f"expected https://, unix:/path, or http:// on this machine, met {parsed.scheme}://"
        f"{parsed.host}",
        hint="A handle in clear on a network can be used by whoever sees it",
    )


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
