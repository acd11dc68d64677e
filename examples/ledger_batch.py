"""Many ledger entries in one request, and the whole chain verified afterwards, offline.

Run it against a node: ``python examples/ledger_batch.py``. KEYSTEAD_URL names the node, and the
operator's token is in KEYSTEAD_TOKEN or in the file KEYSTEAD_TOKEN_FILE.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from pathlib import Path

from keystead.client import AsyncClient, Narrowing, Used, operations
from keystead.keys.verify import SignedEntry, verify_ledger

URL = os.environ.get("KEYSTEAD_URL", "http://127.0.0.1:7410")
ORDERS = 500


def operator_token() -> str:
    """The operator's token, from the environment or from its file."""
    given = os.environ.get("KEYSTEAD_TOKEN")
    return (given or Path(os.environ["KEYSTEAD_TOKEN_FILE"]).read_text()).strip()


async def main() -> None:
    """Make a ledger, fill it, verify it."""
    name = f"example-orders-{secrets.token_hex(4)}"
    async with AsyncClient(URL, operator=operator_token()) as client:
        await client.create_key(name, "ledger")
        issued = await client.issue_handle(
            name, "shop", narrowing=Narrowing(context_prefix="books/2026")
        )
        entries = [json.dumps({"order": number}).encode() for number in range(ORDERS)]
        answers = await client.batch(
            operations.append_ledger(issued.handle, entry, context="books/2026")
            for entry in entries
        )
        public = await client.public_key(name)
    # Appends of one batch may take their places in any order: sort by the ledger's own number.
    signed: dict[int, SignedEntry] = {}
    for entry, answer in zip(entries, answers, strict=True):
        if not isinstance(answer, Used):
            raise answer
        result = answer.result
        signed[result.sequence] = SignedEntry(
            document=result.document, signatures=result.signatures, entry=entry
        )
    chain = verify_ledger([signed[number] for number in sorted(signed)], public)
    print(f"{chain.entries} entries, head {chain.head.hex()}")


if __name__ == "__main__":
    asyncio.run(main())
