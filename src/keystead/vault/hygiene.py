"""What the vault's process gives up before it opens a key: dumps, swap, privileges."""

from __future__ import annotations

import ctypes
import os
import resource

__all__ = ["harden"]

_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_MCL_CURRENT_AND_FUTURE = 3
_CAP_LAST = 63
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def harden() -> dict[str, str]:
    """Forbid dumps and cores, lock memory where it may be, drop privileges; tells what holds.

    Each step is prctl(2), setrlimit(2), mlockall(2) or capset(2); a step that the kernel refuses is
    reported, not hidden: the node shows it in ``/ready``.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    undumpable = _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
    locked = _lock_memory()
    no_new = _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    dropped = _drop_capabilities()
    return {
        "core dumps": "off" if undumpable else "possible",
        "memory": "locked" if locked else "may be swapped: only the secrets themselves are locked",
        "privileges": "dropped" if no_new and dropped else "kept",
    }


def _lock_memory() -> bool:
    """Lock all memory, but only if the limit lets the process grow: else it would die of it."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft != resource.RLIM_INFINITY and not _raise_memlock():
        return False
    return bool(_libc.mlockall(_MCL_CURRENT_AND_FUTURE) == 0)


def _raise_memlock() -> bool:
    try:
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, unlimited)
    except (ValueError, OSError):
        return False
    return True


def _drop_capabilities() -> bool:
    """Every capability goes, also from the bounding set: root keeps only the files it owns."""
    if os.geteuid() == 0:
        for capability in range(_CAP_LAST + 1):
            _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    data = (_CapData * 2)()
    return bool(_libc.capset(ctypes.byref(header), ctypes.byref(data)) == 0)
