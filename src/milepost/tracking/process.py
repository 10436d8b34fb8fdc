"""Which process this is, and whether another one of this machine is still alive. Owns process names; knows no store."""

from __future__ import annotations

import os
import socket
import sys
from functools import cache
from hashlib import blake2b


def process_name() -> str:
    """A name of this process that no other has: host, pid, and what tells a reused pid apart."""
    return _name(os.getpid())


@cache
def _name(pid: int) -> str:
    return f"{socket.gethostname()}:{pid}:{_birth(pid) or _ancient()}:{_place()}"


@cache
def _ancient() -> str:
    return os.urandom(4).hex()


def _birth(pid: int) -> str:
    """When a process started, in clock ticks since boot; empty where /proc does not tell."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return ""


@cache
def _place() -> str:
    """A digest of this boot and this pid namespace: only within one place do pids mean the same process."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as boot:
            place = boot.read() + os.readlink("/proc/self/ns/pid").encode()
    except OSError:
        return "elsewhere"
    return blake2b(place, digest_size=4).hexdigest()


def process_of(name: str) -> str:
    """The process in the name of a worker, which is the process's with a number of its own."""
    return ":".join(name.split(":")[:4])


def is_dead(name: str) -> bool:
    """Whether a process of this very machine is known to be dead; False when that cannot be known from here."""
    host, pid, birth, place = [*name.split(":"), "", "", ""][:4]
    if host != socket.gethostname() or not pid.isdigit() or place != _place() or not _birth(os.getpid()):
        return False
    if os.path.exists(f"/proc/{pid}"):
        return _birth(int(pid)) not in ("", birth)
    return True


def versions() -> dict[str, str]:
    """The versions that a failure names."""
    from milepost import __version__

    return {"python": sys.version.split()[0], "milepost": __version__}
