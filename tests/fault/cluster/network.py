"""Machines of a test's own: a network namespace each, joined by a router that cuts and delays.

The router is a namespace too, so nothing is added to the network of the machine that runs this. A
cut is a rule of nftables in the router, for one direction; a delay sends what one machine has for
another through a relay on a TUN device, so that connections that are up feel it as well. Every
machine is removed by :meth:`Network.close`; what a killed run left is removed by the next one.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from fault.cluster import relay

__all__ = ["MACHINES", "Cut", "Network", "missing", "missing_tun"]

MACHINES = {
    "db": "10.213.1.2",
    "a": "10.213.2.2",
    "b": "10.213.3.2",
    "clients": "10.213.4.2",
}
"""Machine to its address; nobody outside the namespaces sees them."""
_ROUTER = "router"
_PREFIX = "keystead"
_TABLE = "inet keystead"
_RELAYED = "77"
_CLONE_NEWNET = 0x40000000  # sched.h
_NEEDED = ("ip", "nft", "nsenter", "setpriv")
_ENDS_WITHIN_S = 10
_libc = ctypes.CDLL(None, use_errno=True)


def missing() -> tuple[str, bool]:
    """Why networks cannot be made here, empty if they can; and whether a person can help it."""
    if os.geteuid() != 0:
        return "network namespaces need root", True
    absent = [name for name in _NEEDED if shutil.which(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)}; tools/apt_needs.sh names the packages", True
    name = f"{_PREFIX}-{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"the kernel allows no network namespace: {made.stderr.strip()}", False
    ruled = subprocess.run(
        ["ip", "netns", "exec", name, "nft", "add", "table", *_TABLE.split()],
        capture_output=True,
        text=True,
        check=False,
    )
    subprocess.run(["ip", "netns", "del", name], check=True)
    if ruled.returncode:
        return f"the kernel has no nftables: {ruled.stderr.strip()}", False
    return "", False


def missing_tun() -> str:
    """Why nothing can be delayed here, empty if it can."""
    try:
        os.close(os.open(relay.TUN, os.O_RDWR))
    except OSError as exc:
        return f"{relay.TUN} cannot be opened: {exc.strerror}"
    return ""


class Cut:
    """A rule of the router's that drops what one machine sends to another."""

    def __init__(self, network: Network, handle: str) -> None:
        self._network = network
        self._handle = handle

    def heal(self) -> int:
        """Take the rule away; gives how many packets it dropped."""
        rules = self._network.nft("-a", "list", "chain", *_TABLE.split(), "forward")
        found = re.search(rf"packets (\d+) .*# handle {self._handle}$", rules, re.MULTILINE)
        self._network.nft("delete", "rule", *_TABLE.split(), "forward", "handle", self._handle)
        return int(found[1]) if found else 0


class Network:
    """The machines of one deployment; ``with`` makes them and takes them away."""

    _made = itertools.count()

    def __init__(self) -> None:
        self._number = next(self._made)
        self._relay: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    # --- making and removing ---------------------------------------------------------------------

    def __enter__(self) -> Self:
        _sweep()
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _make(self) -> None:
        for machine in (_ROUTER, *MACHINES):
            _ip("netns", "add", self.name(machine))
            self._ip_in(machine, "link", "set", "lo", "up")
        for machine, address in MACHINES.items():
            gateway = _gateway(address)
            link = ("link", "add", f"to-{machine}", "type", "veth", "peer", "name", "eth0")
            self._ip_in(_ROUTER, *link, "netns", self.name(machine))
            self._ip_in(_ROUTER, "address", "add", f"{gateway}/24", "dev", f"to-{machine}")
            self._ip_in(_ROUTER, "link", "set", f"to-{machine}", "up")
            self._ip_in(machine, "address", "add", f"{address}/24", "dev", "eth0")
            self._ip_in(machine, "link", "set", "eth0", "up")
            self._ip_in(machine, "route", "add", "default", "via", gateway)
        with self.inside(_ROUTER):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            # What comes back from the relay comes by another device than its sender's.
            for name in ("all", "default"):
                Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter").write_text("0")
        self.nft("add", "table", *_TABLE.split())
        self.nft(
            "add", "chain", *_TABLE.split(), "forward", "{ type filter hook forward priority 0; }"
        )

    def close(self) -> None:
        """End the relay and remove all machines; the processes on them are their starters' own."""
        if self._relay is not None:
            self._relay.kill()
            self._relay.communicate()
            self._relay = None
        for machine in (_ROUTER, *MACHINES):
            if Path("/run/netns", self.name(machine)).exists():
                _ip("netns", "del", self.name(machine))

    # --- being on a machine ----------------------------------------------------------------------

    def name(self, machine: str) -> str:
        """What the namespace of a machine is called."""
        return f"{_PREFIX}-{os.getpid()}-{self._number}-{machine}"

    def command(self, machine: str) -> list[str]:
        """What to put before a command to have it run on a machine, and ended with its starter."""
        path = f"/run/netns/{self.name(machine)}"
        return ["nsenter", f"--net={path}", "setpriv", "--pdeathsig", "TERM"]

    def enter(self, machine: str) -> None:
        """Put this thread on a machine for good: a namespace of this kind is a thread's own."""
        _set_namespace(Path("/run/netns", self.name(machine)))

    @contextmanager
    def inside(self, machine: str) -> Iterator[None]:
        """Be on a machine: sockets that this thread makes inside are of that one."""
        own = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
        try:
            self.enter(machine)
            try:
                yield
            finally:
                _set_namespace(own)
        finally:
            os.close(own)

    # --- cutting and delaying --------------------------------------------------------------------

    def cut(self, sender: str, receiver: str) -> Cut:
        """Drop all that one machine sends to another, until it is healed."""
        rule = f"ip saddr {MACHINES[sender]} ip daddr {MACHINES[receiver]} counter drop"
        said = self.nft("-a", "-e", "add", "rule", *_TABLE.split(), "forward", *rule.split())
        found = re.search(r"# handle (\d+)$", said, re.MULTILINE)
        if found is None:
            raise RuntimeError(f"expected the handle of the new rule, met {said!r}")
        return Cut(self, found[1])

    @contextmanager
    def delayed(self, one: str, other: str, delay_s: float) -> Iterator[list[int]]:
        """Have what two machines send each other arrive later; at the end, how many packets did."""
        relayed: list[int] = []
        with self._lock:
            before = self._ask_relay(f"{delay_s}")
            rules = [
                ("iif", f"to-{sender}", "to", MACHINES[receiver], "lookup", _RELAYED)
                for sender, receiver in ((one, other), (other, one))
            ]
            for rule in rules:
                self._ip_in(_ROUTER, "rule", "add", *rule)
            try:
                yield relayed
            finally:
                for rule in rules:
                    self._ip_in(_ROUTER, "rule", "del", *rule)
                relayed.append(self._ask_relay("0") - before)

    def _ask_relay(self, delay: str) -> int:
        """Set the relay's delay; gives how many packets it has passed on so far."""
        if self._relay is None:
            arguments = [sys.executable, str(relay.__file__)]
            self._relay = subprocess.Popen(
                [*self.command(_ROUTER), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            self._say("0")
            self._ip_in(_ROUTER, "link", "set", relay.DEVICE, "up")
            self._ip_in(_ROUTER, "route", "add", "default", "dev", relay.DEVICE, "table", _RELAYED)
        return self._say(delay)

    def _say(self, line: str) -> int:
        if self._relay is None or self._relay.stdin is None or self._relay.stdout is None:
            raise RuntimeError("the relay does not run")
        self._relay.stdin.write(f"{line}\n")
        self._relay.stdin.flush()
        return int(self._relay.stdout.readline())

    # --- the tools -------------------------------------------------------------------------------

    def nft(self, *arguments: str) -> str:
        """Run nft in the router; gives what it says."""
        return _run(["ip", "netns", "exec", self.name(_ROUTER), "nft", *arguments])

    def _ip_in(self, machine: str, *arguments: str) -> str:
        return _ip("-n", self.name(machine), *arguments)


def _gateway(address: str) -> str:
    return address.rpartition(".")[0] + ".1"


def _ip(*arguments: str) -> str:
    return _run(["ip", *arguments])


def _run(command: list[str]) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=_ENDS_WITHIN_S
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _set_namespace(namespace: Path | int) -> None:
    descriptor = os.open(namespace, os.O_RDONLY) if isinstance(namespace, Path) else namespace
    try:
        if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        if isinstance(namespace, Path):
            os.close(descriptor)


def _sweep() -> None:
    """Remove machines of runs that were killed: of a process that is no more."""
    for path in Path("/run/netns").glob(f"{_PREFIX}-*-*"):
        pid = path.name.split("-")[1]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            with suppress(RuntimeError):
                _ip("netns", "del", path.name)
