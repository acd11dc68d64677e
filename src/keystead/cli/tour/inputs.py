"""What the tour works with: a key of every purpose, and what the policy of each allows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from keystead import limits
from keystead.keys.model import CaPolicy, FirmwarePolicy, JwtPolicy, Policy, SshCaPolicy

__all__ = ["AUDIENCE", "DOMAIN", "HOST", "ISSUER", "LOGIN", "KeyPlan", "image_name", "plans"]

ISSUER = "https://login.tour.example"
AUDIENCE = "shop"
DOMAIN = "tour.example"  # RFC 2606 section 2: nobody's
HOST = f"www.{DOMAIN}"
LOGIN = "deploy"

_NOT_NAME = re.compile(r"[^a-z0-9._-]+")


class KeyPlan(NamedTuple):
    """One key: its role is what the tour calls it; ``kind`` is what openssl shall take it for."""

    role: str
    purpose: str
    algorithm: str
    principal: str
    kind: str = ""
    policy: Policy = Policy()


def image_name(image: Path) -> str:
    """A firmware image's name as the policy has it, out of the file's."""
    return _NOT_NAME.sub("-", image.name.lower()).strip("._-")[: limits.NAME_BYTES_MAX] or "image"


def plans(image: str, run: str) -> tuple[KeyPlan, ...]:
    """The keys of one run; ``image``: the name of the firmware image that may be signed."""
    tokens = Policy(jwt=JwtPolicy(issuer=ISSUER, audiences=(AUDIENCE,), lifetime_max_s=600))
    images = Policy(firmware=FirmwarePolicy(names=(image,), step_max=10))
    authority = CaPolicy(
        common_name=f"Keystead tour {run}", dns_suffixes=(DOMAIN,), lifetime_max_s=86_400
    )
    logins = Policy(ssh_ca=SshCaPolicy(principals=(LOGIN,)))
    p256, ed25519 = "ecdsa-p256-sha256", "ed25519"
    dual, pss = "dual-ecdsa-p256-ml-dsa-65", "rsa-pss-2048-sha256"
    return (
        KeyPlan("jwt", "jwt", p256, "login", "P-256", tokens),
        KeyPlan("jwt-ed", "jwt", ed25519, "login", "ED25519", tokens),
        KeyPlan("firmware", "firmware", p256, "build-farm", "P-256", images),
        KeyPlan("firmware-dual", "firmware", dual, "build-farm", "P-256", images),
        KeyPlan("ledger", "ledger", ed25519, "releases", "ED25519"),
        KeyPlan("tls", "tls", p256, "web-eu", "P-256"),
        KeyPlan("tls-rsa", "tls", pss, "web-eu", "RSA 2048 bit"),
        KeyPlan("ca", "ca", p256, "pki-desk", "P-256", Policy(ca=authority)),
        KeyPlan("ssh-ca", "ssh_ca", ed25519, "bastion", "ED25519", logins),
        KeyPlan("data", "data", "aes-256-gcm-siv", "shop-db"),
    )
