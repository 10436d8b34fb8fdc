"""What a type checker knows about `run.map`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
from typing import assert_type

from milepost import Run


async def ask(text: str) -> int:
    return len(text)


def count(text: str) -> int:
    return len(text)


async def asynchronous(run: Run) -> None:
    assert_type(await run.map(ask, ["a"], concurrency=4), list[int])
    assert_type(await run.map(ask, ["a"], errors="collect"), list[int | None])
    assert_type(await run.map(ask, ["a"], keep=False), list[int | None])
    assert_type(await run.map(ask, ["a"], resume=True), list[int | None])


def blocking(run: Run) -> None:
    assert_type(run.map(count, ["a"], key=len), list[int])
    assert_type(run.map(count, ["a"], resume=False), list[int])
    assert_type(run.map(count, ["a"], errors="collect"), list[int | None])
    assert_type(run.map(lambda text: text.upper(), ["a"]), list[str])
"""


def check(code: str, folder: Path) -> tuple[int, str]:
    """Return the exit status and the errors of `mypy --strict` for a program."""
    (folder / "program.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", f"--cache-dir={ROOT / '.mypy_cache' / 'docs'}", "program.py"],
        cwd=folder, env={**os.environ, "MYPYPATH": str(ROOT / "src")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_map_has_result_type_of_function(tmp_path: Path) -> None:
    assert check(PROGRAM, tmp_path) == (0, "")


@pytest.mark.parametrize("call", ["await run.map(ask, [1])", "run.map(ask, ['a'])[0]"], ids=["items", "not-awaited"])
def test_map_with_wrong_use_is_reported(call: str, tmp_path: Path) -> None:
    status, errors = check(f"{PROGRAM}\n\nasync def wrong(run: Run) -> None:\n    {call}\n", tmp_path)
    assert status == 1
    assert errors.count("error:") == 1
