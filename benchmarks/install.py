"""Environments of the peers: one each under `.bench/`, made from `peers/PEER.txt`, and rebuilt when that file changes.

A file of pins may name npm packages (`name@version`); its peer is then a program of Node, `peers/PEER.cjs`. The package
`node` is a Node of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "benchmarks" / "peers"


GUESTS = {"milepost_celery": "celery", "milepost_tracked": "celery"}
"""Peers that share the environment of another peer, with milepost from this checkout."""


def pins(peer: str) -> list[str]:
    """Return the pinned packages of a peer, its own first; none if this environment runs it."""
    file = PEERS / f"{GUESTS.get(peer, peer)}.txt"
    return file.read_text().split() if file.exists() else []


def folder(peer: str) -> Path:
    """Return the directory of a peer's environment."""
    return ROOT / ".bench" / GUESTS.get(peer, peer)


def is_node(peer: str) -> bool:
    """Return whether a peer is a Node program."""
    return (PEERS / f"{peer}.cjs").exists()


def interpreter(peer: str) -> list[str]:
    """Return the command that runs a peer: from its environment, else this Python."""
    if is_node(peer):
        own = folder(peer) / "node_modules" / "node" / "bin" / "node"
        return [str(own if own.exists() else "node"), str(PEERS / f"{peer}.cjs")]
    own = folder(peer) / "bin" / "python"
    return [str(own if own.exists() else sys.executable)]


def variables(peer: str) -> dict[str, str]:
    """Return the environment variables of a peer, without milepost's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MILEPOST_")}
    if is_node(peer):
        return kept | {"NODE_PATH": str(folder(peer) / "node_modules")}
    return kept | {"PYTHONPATH": str(ROOT / "src")} if peer in GUESTS else kept


def install(peer: str) -> None:
    """Create a peer's environment unless it is up to date. Exits with the output of a failed pip or npm."""
    wanted, place = pins(peer), folder(peer)
    made = place / ".made"
    if not wanted or (made.exists() and made.read_text().split() == wanted):
        return
    print(f"  {peer}: installing {', '.join(wanted)} into {place.relative_to(ROOT)}", file=sys.stderr, flush=True)
    shutil.rmtree(place, ignore_errors=True)
    if is_node(peer):
        place.mkdir(parents=True)
        _run(["npm", "install", "--silent", "--no-save", "--no-package-lock", "--prefix", str(place), *wanted])
    else:
        _run([sys.executable, "-m", "venv", str(place)])
        python = str(place / "bin" / "python")
        _run([python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *wanted])
    made.write_text("\n".join(wanted) + "\n")


def _run(command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        sys.exit(f"benchmarks: {command[0]} is not installed; leave its peer out with --only")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"benchmarks: {' '.join(command)} failed:\n{done.stdout}{done.stderr}")
