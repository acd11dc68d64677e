"""Downloads that a person names: bounded in size and time, from the host that was named only."""

from __future__ import annotations

import ssl
import time

import httpx
import typer

from keystead import __version__, limits

__all__ = ["fetch"]

_HEADERS = {"user-agent": f"keystead/{__version__}", "accept-encoding": "identity"}
"""Uncompressed, so that its size is what comes in."""


def fetch(url: str) -> bytes:
    """What stands at an http or https address.

    Raises:
        BadParameter: no answer in time, a status other than 200, too big, or sent elsewhere.
    """
    ends_s = time.monotonic() + limits.ARTEFACT_FETCH_S
    try:
        at = httpx.URL(url)
        with httpx.Client(
            headers=_HEADERS,
            trust_env=False,
            timeout=limits.ARTEFACT_FETCH_S,
            verify=ssl.create_default_context(),
        ) as http:
            for _hop in range(1 + limits.ARTEFACT_REDIRECTS_MAX):
                with http.stream("GET", at) as response:
                    if not response.has_redirect_location:
                        return _body(response, ends_s)
                    at = _next(at, response)
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise _refused(url, f"{type(exc).__name__} {exc}".strip()) from exc
    raise _refused(url, f"more than {limits.ARTEFACT_REDIRECTS_MAX} redirects")


def _next(at: httpx.URL, response: httpx.Response) -> httpx.URL:
    there = at.join(response.headers["location"])
    if (there.scheme, there.host, there.port) != (at.scheme, at.host, at.port):
        raise _refused(
            str(at), f"it redirects to {there.scheme}://{there.host}: name that yourself"
        )
    return there


def _body(response: httpx.Response, ends_s: float) -> bytes:
    url = str(response.url)
    if response.status_code != httpx.codes.OK:
        raise _refused(url, f"expected status 200, met {response.status_code}")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise _refused(url, "expected it uncompressed")
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > limits.ARTEFACT_SOURCE_BYTES_MAX:
            raise _refused(url, f"expected at most {limits.ARTEFACT_SOURCE_BYTES_MAX} bytes")
        if time.monotonic() > ends_s:
            raise _refused(url, f"it takes more than {limits.ARTEFACT_FETCH_S:g} s")
    return bytes(body)


def _refused(url: str, why: str) -> typer.BadParameter:
    return typer.BadParameter(f"cannot read {url[:200]}: {why}", param_hint="FILE")
