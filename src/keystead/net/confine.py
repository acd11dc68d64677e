"""What a process that reads strangers' bytes gives up first: dumps, and most of the file system.

Landlock (landlock(7), Linux 5.13) binds a process, and all it starts, to the folders it names. A
front that was taken over then cannot read the seal or the registry, although they are its user's.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["confine", "forbid_dumps", "program_folders"]

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_SYS_CREATE_RULESET = 444  # the same on every architecture, as of all system calls since 5.1
_SYS_ADD_RULE = 445
_SYS_RESTRICT_SELF = 446
_RULE_PATH_BENEATH = 1
_VERSION_FLAG = 1
_READ = 1 << 0 | 1 << 2 | 1 << 3  # execute, read a file, read a folder
_READ_FILE = 1 << 0 | 1 << 2
_MAKE_SOCKET = 1 << 9
_ALL_ABI_1 = (1 << 13) - 1  # every right that the first version knows: what is not named is refused

_libc = ctypes.CDLL(None, use_errno=True)


class _Ruleset(ctypes.Structure):
    _fields_ = (("handled_access_fs", ctypes.c_uint64),)


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def forbid_dumps() -> None:
    """No core, and no other process of this user may attach: a front holds tokens (prctl(2))."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def program_folders() -> list[Path]:
    """What the interpreter, its packages and libraries are read from while the process runs."""
    system = ("/usr", "/lib", "/lib64", "/etc", "/dev", "/proc/self", "/sys/fs/cgroup")
    found = [sys.prefix, sys.base_prefix, str(Path(__file__).parents[1]), *system]
    return [path for path in map(Path, found) if path.exists()]


def confine(readable: Iterable[Path], keep_out_of: Path) -> bool:
    """Let this process, from now on, open nothing but what is readable, and write to no file.

    Whatever is open stays open; sockets are no files, and one may still be made in ``keep_out_of``.
    Call it before any thread is started: a thread that runs already is not bound. Gives whether the
    files of ``keep_out_of`` are out of reach: not where the kernel has no Landlock, or where one of
    the folders holds it.
    """
    folder = keep_out_of.resolve()
    paths = [path.resolve() for path in readable]
    if any(folder.is_relative_to(path) for path in paths):
        return False
    if _libc.syscall(_SYS_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG) < 1:
        return False
    asked = _Ruleset(_ALL_ABI_1)
    size = ctypes.c_size_t(ctypes.sizeof(asked))
    ruleset = _libc.syscall(_SYS_CREATE_RULESET, ctypes.byref(asked), size, 0)
    if ruleset < 0:
        return False
    try:
        rules = [(path, _READ if path.is_dir() else _READ_FILE) for path in paths]
        if not all(_allow(ruleset, *rule) for rule in (*rules, (folder, _MAKE_SOCKET))):
            return False
        _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        return bool(_libc.syscall(_SYS_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, access: int) -> bool:
    parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = _PathBeneath(access, parent)
        done = _libc.syscall(_SYS_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0)
        return bool(done == 0)
    finally:
        os.close(parent)
