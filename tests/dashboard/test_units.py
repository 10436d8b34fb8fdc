"""The dashboard's own unit tests (vitest), and the limits of what is built."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from milepost.plugins import BUILT_IN
from tests.dashboard.conftest import ROOT
from tests.services import in_ci

DASHBOARD = ROOT / "dashboard"
JOBS_COMPRESSED, ALL_RAW = 90_000, 267_000


def test_unit_tests_of_the_dashboard() -> None:
    if not (DASHBOARD / "node_modules").is_dir() and not in_ci():
        pytest.skip("the packages of the dashboard are not installed: make static")
    done = subprocess.run(
        [sys.executable, "dashboard/build.py", "--test"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_built_stays_small(dashboard: Path) -> None:
    files = [path for path in dashboard.rglob("*") if path.is_file() and not path.name.startswith(".")]
    assert sum(path.stat().st_size for path in files) <= ALL_RAW
    first = [path for path in files if path.name == "index.html" or path.name.startswith(("index-", "icon-"))]
    assert len(first) >= 4
    assert sum(len(gzip.compress(path.read_bytes())) for path in first) <= JOBS_COMPRESSED


def test_the_lock_file_names_no_address() -> None:
    packages = json.loads((DASHBOARD / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert packages
    assert not [name for name, package in packages.items() if "resolved" in package]
    assert all("integrity" in package for name, package in packages.items() if name)


def test_page_of_documents_offers_every_format() -> None:
    page = (DASHBOARD / "src/pages/documents.tsx").read_text(encoding="utf-8")
    offered = re.search(r"const FORMATS = (\[[^]]*\]);", page)
    assert offered is not None
    assert json.loads(offered[1]) == list(BUILT_IN["milepost.loaders"])


def test_files_are_short() -> None:
    paths = [
        path for folder in ("src", "tests") for path in (DASHBOARD / folder).rglob("*.*") if ".gen." not in path.name
    ]
    assert len(paths) > 40
    assert not [path.name for path in paths if len(path.read_text(encoding="utf-8").splitlines()) > 400]
