"""Builds `clients/npm` as its users do, in a folder of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.node import npm_install, run_npm

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ["clients/npm", "dashboard/src", "dashboard/tsconfig.json", "docs/openapi.json"]


def pack(folder: Path) -> Path:
    """Build and pack the package from a copy of its sources, and return the file."""
    left_out = shutil.ignore_patterns("node_modules", "dist", "openapi.gen.ts")
    for name in SOURCES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=left_out)
        else:
            shutil.copy(ROOT / name, folder / name)
    package = folder / "clients/npm"
    npm_install(package)
    return package / run_npm(package, "pack", "--silent").split()[-1]
