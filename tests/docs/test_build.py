"""The documentation is built, any warning being an error; what is made from code is as the code says."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from milepost import AsyncJobManager, AsyncJobs
from tests.docs.page_runner import ROOT


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """scripts/docs.py."""
    spec = importlib.util.spec_from_file_location("docs_script", ROOT / "scripts" / "docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_settings_page_is_up_to_date(script: ModuleType) -> None:
    page = script.SETTINGS.read_text()
    assert page == script.settings_page(), "run python scripts/docs.py --settings"
    assert "| `MILEPOST_LEASE` | `lease` | `30` |" in page


def pages_of(navigation: str | list[Any] | dict[str, Any]) -> list[str]:
    """Return the pages of a part of the navigation, which may have sections in sections."""
    if isinstance(navigation, str):
        return [navigation]
    parts = navigation.values() if isinstance(navigation, dict) else navigation
    return [page for part in parts for page in pages_of(part)]


def test_every_page_is_in_the_navigation() -> None:
    named = pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert set(named) == there
    assert len(named) == len(there)


def test_every_public_name_is_in_reference() -> None:
    import milepost

    text = "".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md"))
    referred = set(re.findall(r"^::: [\w.]*?(\w+)$", text, re.MULTILINE))
    errors = {name for name in milepost.__all__ if name in dir(importlib.import_module("milepost.core.errors"))}
    missing = set(milepost.__all__) - referred - errors - {"__version__", "Settings", "Client"}
    assert missing == set()


def test_every_command_is_on_its_page() -> None:
    from milepost.plugins import COMMAND_SUMMARIES

    table = (ROOT / "docs" / "command-line.md").read_text().partition("## All commands")[2]
    named = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)))
    assert sorted(named) == sorted(name for group in COMMAND_SUMMARIES.values() for name in group)


def test_docs_build_without_warnings(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "scripts/docs.py", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    built = (tmp_path / "site" / "reference" / "run.html").read_text()
    assert "Report how far the run is" in built
    jobs = (tmp_path / "site" / "reference" / "jobs.html").read_text()
    described = set(re.findall(r'id="milepost[\w.]*\.(?:AsyncJobs|AsyncJobManager)\.(\w+)"', jobs))
    public = {name for name in {*dir(AsyncJobs), *dir(AsyncJobManager)} if not name.startswith("_")}
    assert public - described == {"of", "with_manager", "after_fork"}
    foreign = re.findall(r'(?:src|href)="(?:https?:)?//[^"]+\.(?:js|css|woff2?)"', built)
    assert foreign == []
