"""What the vault's process gives up before it opens a key, as the kernel shows it."""

import json
import os
import subprocess
import sys
from typing import Any

HARDENED = """
import ctypes, json, pathlib, resource
from keystead.vault.hygiene import harden

said = harden()
status = pathlib.Path("/proc/self/status").read_text()
fields = dict(line.split(":\\t", 1) for line in status.splitlines() if ":\\t" in line)
print(json.dumps({
    "said": said,
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0),
    "fields": {name: text.strip() for name, text in fields.items()},
}))
"""
LIMITED = """
import ctypes, json, os, pathlib, resource
from keystead.vault import hygiene

resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
if os.geteuid() == 0:  # root would raise its own limit
    os.setgid(65534)
    os.setuid(65534)
"""


def hardened(program: str = HARDENED) -> dict[str, Any]:
    """What a process of its own says after it: what it gives up does not come back."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_nothing_is_dumped() -> None:
    found = hardened()
    assert (found["core"], found["dumpable"]) == ([0, 0], 0)
    assert found["said"]["core dumps"] == "off"


def test_no_privilege_is_left() -> None:
    found = hardened()
    fields = found["fields"]
    assert fields["NoNewPrivs"] == "1"
    for name in ("CapEff", "CapPrm", "CapInh"):
        assert int(fields[name], 16) == 0
    if os.geteuid() == 0:
        assert int(fields["CapBnd"], 16) == 0
    assert found["said"]["privileges"] == "dropped"


def test_what_it_says_of_its_memory_is_so() -> None:
    found = hardened()
    locked_kib = int(found["fields"]["VmLck"].split()[0])
    assert (found["said"]["memory"] == "locked") == (locked_kib > 0)


def test_a_limit_on_locked_memory_is_told() -> None:
    """A process that locked all it will ever have would die of the limit."""
    found = hardened(LIMITED + HARDENED)
    assert "may be swapped" in found["said"]["memory"]
