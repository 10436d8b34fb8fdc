"""Type checkers infer the result of a submitted handler, and the program that they check returns such results."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("typed_results.py")
CHECKERS = {
    "mypy": ["mypy", "--strict", "--no-error-summary", f"--cache-dir={ROOT / '.mypy_cache' / 'docs'}"],
    "pyright": ["pyright", "--pythonpath", sys.executable],
}
WRONG = """
from tests.worker.typed_results import count, jobs, words

text: str = jobs.result(jobs.submit(count, text="four"))
number: int = jobs.result(jobs.submit(words, "a b"))
jobs.submit(count, text=4)
"""


def check(checker: str, program: Path) -> tuple[int, str]:
    """Return the exit status and the errors of a type checker."""
    done = subprocess.run(
        [sys.executable, "-m", *CHECKERS[checker], str(program)],
        cwd=ROOT, env={**os.environ, "MYPYPATH": str(ROOT / "src"), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("checker", CHECKERS)
def test_result_type_is_inferred_from_handler(checker: str) -> None:
    status, errors = check(checker, PROGRAM)
    assert status == 0, errors


@pytest.mark.parametrize("checker", CHECKERS)
def test_wrong_use_of_result_is_reported(checker: str, tmp_path: Path) -> None:
    program = tmp_path / "wrong.py"
    program.write_text(WRONG)
    status, errors = check(checker, program)
    found = {line for line in (4, 5, 6) if f"wrong.py:{line}" in errors}
    assert (status, found) == (1, {4, 5, 6}), errors


def test_results_have_their_declared_types() -> None:
    done = subprocess.run([sys.executable, str(PROGRAM)], cwd=ROOT, capture_output=True, text=True, check=False)
    results = "[4, ['a', 'b']] [1, {'index': 'docs', 'chunks': [1, 2]}] [{'mean': 1.5}, [{'mean': 1.5}], [1, 2]] True"
    assert done.stdout == f"{results} milepost.core.job.Job[int]\n", done.stderr
