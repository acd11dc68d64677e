"""A step of a build: sign an image by a handle, then verify it as a device would, offline.

``python examples/sign_firmware.py IMAGE --key boot --name app --version 7 --handle-file ci.handle``

The node is KEYSTEAD_URL. A step that dies and runs again asks for the same thing under the same
idempotency key, so it gets the same signatures and one record.
"""

from __future__ import annotations

import argparse
import os
from hashlib import sha256
from pathlib import Path

from keystead.client import Client, parse_handle
from keystead.errors import Conflict
from keystead.keys.verify import verify_firmware


def arguments() -> argparse.Namespace:
    """What to sign, and by what right."""
    parser = argparse.ArgumentParser(description="Sign a firmware image.")
    parser.add_argument("image", type=Path)
    parser.add_argument("--key", required=True, help="the key, to verify with")
    parser.add_argument("--name", required=True, help="the image's name, of the key's policy")
    parser.add_argument("--version", type=int, required=True, help="the image's version counter")
    parser.add_argument("--handle-file", type=Path, required=True)
    parser.add_argument("--context", default="release/stable")
    return parser.parse_args()


def main() -> int:
    """Sign, write manifest and signatures beside the image, verify."""
    asked = arguments()
    handle = parse_handle(asked.handle_file.read_text().strip())
    image = asked.image.read_bytes()
    digest = sha256(image)
    once = f"{asked.name[:20]}-{asked.version}-{digest.hexdigest()[:20]}"
    with Client(os.environ.get("KEYSTEAD_URL", "http://127.0.0.1:7410")) as client:
        try:
            used = client.sign_firmware(
                handle,
                asked.name,
                asked.version,
                sha256=digest.digest(),
                size=len(image),
                context=asked.context,
                idempotency_key=once,
            )
        except Conflict as refusal:
            print(f"refused: {refusal}")
            return 1
        public = client.public_key(asked.key)
    folder, name = asked.image.parent, asked.image.name
    (folder / f"{name}.manifest.json").write_bytes(used.result.manifest)
    for algorithm, signature in used.result.signatures.items():
        (folder / f"{name}.{algorithm}.sig").write_bytes(signature)
    found = verify_firmware(
        used.result.manifest,
        used.result.signatures,
        public,
        name=asked.name,
        version_min=asked.version,
        image_sha256=digest.digest(),
        image_size=len(image),
    )
    again = ", as before" if used.receipt.replayed else ""
    print(f"{found.name} {found.version}: signed and verified, record {used.receipt.seq}{again}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
