"""A unique name for this process, and whether another process of this machine is dead."""

from __future__ import annotations

import os
import socket
import sys
from functools import cache
from hashlib import blake2b


def process_name() -> str:
    """Return a unique name for this process: host, pid, start time and PID namespace."""
    return _name(os.getpid())


@cache
def _name(pid: int) -> str:
    return f"{socket.gethostname()}:{pid}:{_start_time(pid) or _fallback_id()}:{_pid_namespace()}"


@cache
def _fallback_id() -> str:
    return os.urandom(4).hex()


def _start_time(pid: int) -> str:
    """Return when a process started, in clock ticks since boot; empty if /proc does not tell."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return ""


@cache
def _pid_namespace() -> str:
    """Return a digest of this boot and PID namespace, within which a pid means one process."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as boot:
            place = boot.read() + os.readlink("/proc/self/ns/pid").encode()
    except OSError:
        return "elsewhere"
    return blake2b(place, digest_size=4).hexdigest()


def process_of_worker(name: str) -> str:
    """Return the process in the name of a worker, which is the name of the process with a number."""
    return ":".join(name.split(":")[:4])


def is_known_dead(name: str) -> bool:
    """Return whether a process of this machine is known to be dead; False if that cannot be known from here."""
    host, pid, started, place = [*name.split(":"), "", "", ""][:4]
    if host != socket.gethostname() or not pid.isdigit() or place != _pid_namespace() or not _start_time(os.getpid()):
        return False
    if os.path.exists(f"/proc/{pid}"):
        return _start_time(int(pid)) not in ("", started)
    return True


def versions() -> dict[str, str]:
    """Return the versions that a crash report names."""
    from milepost import __version__

    return {"python": sys.version.split()[0], "milepost": __version__}
