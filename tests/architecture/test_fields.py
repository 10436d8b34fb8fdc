"""The table of fields: what is generated from it is current, and a field is added by one row."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from milepost.core.record import FIELDS

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("field_program.py")
ROW = """    colour: str | None = field(
        default=None,
        metadata=column(
            "", TEXT, "The colour of the work.", listed=True, label="colour",
            option=Option(kind="text", manual=True, flag="--colour", help="Set the colour."),
        ),
    )  # fmt: skip
"""
BEFORE = "    trace: str | None = field(\n"


def run(*words: str, source: Path, **settings: str) -> str:
    """Run Python with the package of a tree, and return what it prints."""
    environment = {**os.environ, **settings, "PYTHONPATH": str(source / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, cwd=source, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_generated_files_are_current() -> None:
    run(str(ROOT / "scripts" / "fields.py"), "--check", source=ROOT)


def test_short_names_are_unique() -> None:
    shorts = [one.short for one in FIELDS if one.short]
    assert len(shorts) == len(set(shorts))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy what the table and its generated files are in, add one row, and generate."""
    tree = tmp_path_factory.mktemp("tree")
    kept = shutil.ignore_patterns("__pycache__", "static", "node_modules")
    for part in ("src/milepost", "scripts", "docs/reference", "dashboard/src/wire"):
        shutil.copytree(ROOT / part, tree / part, ignore=kept)
    shutil.copy(ROOT / "docs" / "openapi.json", tree / "docs")
    table = tree / "src" / "milepost" / "core" / "record.py"
    text = table.read_text("utf-8")
    assert text.count(BEFORE) == 1
    table.write_text(text.replace(BEFORE, ROW + BEFORE), "utf-8")
    run("scripts/fields.py", source=tree)
    return tree


@pytest.mark.parametrize(
    "store", ["memory", "sqlite", pytest.param("redis", marks=pytest.mark.service("redis-server"))]
)
def test_one_row_adds_a_field_everywhere(store: str, tree: Path, request: pytest.FixtureRequest) -> None:
    url = "memory://" if store == "memory" else request.getfixturevalue(f"{store}_url")
    namespace = request.getfixturevalue("redis_namespace") if store == "redis" else "milepost"
    seen: dict[str, Any] = json.loads(run(str(PROGRAM), url, source=tree, MILEPOST_NAMESPACE=namespace))
    assert seen == {
        "create_job": "green",
        "submit": "red",
        "submit by name": "white",
        "get_job": "green",
        "list_jobs": ["green", "red", "white"],
        "to_dict": "green",
        "to_json": "green",
        "row": "green",
        "SubmitOptions": True,
        "client create_job": "blue",
        "client get_job": "green",
        "client list_jobs": ["blue", "green", "red", "white"],
        "GET": "green",
        "POST": "pink",
        "OpenAPI": "The colour of the work.",
        "cli submit": "grey",
        "cli show": [["colour", "green"]],
    }


def test_one_row_adds_a_field_to_the_dashboard_and_the_reference(tree: Path) -> None:
    assert '  "colour",\n' in (tree / "dashboard" / "src" / "wire" / "fields.ts").read_text("utf-8")
    assert "| `colour` |" in (tree / "docs" / "reference" / "records.md").read_text("utf-8")
    assert '"colour"' in (tree / "docs" / "openapi.json").read_text("utf-8")
