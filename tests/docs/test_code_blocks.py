"""Every Python and console block of the README and of the documentation is run, page by page, as its reader would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.arq_environment import arq_environment
from tests.docs.page_runner import ROOT, blocks, run, session_of

PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
IN_A_PROJECT = {"docs/how-to/django.md"}
"""Run by tests/django/test_page.py: its blocks are added to the files of a project."""
ELSEWHERE = {"docs/documents.md", *IN_A_PROJECT}
"""The other one is run by tests/documents/test_documentation.py, with documents to read and servers of models."""
RUN = [
    page
    for page in PAGES
    if page not in ELSEWHERE
    and {language for language, *_ in blocks((ROOT / page).read_text())} & {"python", "console"}
]
WITH_OTHER_WORKERS = "docs/coming-from/"
"""Pages that start workers of other task queues, which takes longer."""
RUN_ALWAYS, NEVER_RUN = {"python", "console"}, {"ini", "json", "sql", "toml", "yaml", "text", "html", "ts", "tsx"}
WHOLE_README = blocks((ROOT / "README.md").read_text())
README = [block for block in WHOLE_README if block[0] == "python"]
IN_A_SESSION = {
    "milepost cancel @last": "milepost submit reindex docs --app myapp:jobs\n$ milepost cancel @last",
    "milepost serve": "milepost serve --port 8321 &",
    "milepost worker myapp:jobs -c 4": "milepost worker myapp:jobs -c 4 &",
}
"""What the README lists for several terminals, as one session runs it: with a job to cancel, and going on after what stays."""
MY_APP = """
from milepost import Jobs, Run

jobs = Jobs()

@jobs.job("reindex")
def reindex(run: Run, index: str) -> None:
    pass
"""


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] * page.startswith(WITH_OTHER_WORKERS)) for page in RUN],
)
def test_page_runs_unmodified(
    page: str, tmp_path: Path, redis_url: str, redis_namespace: str, request: pytest.FixtureRequest
) -> None:
    text = (ROOT / page).read_text()
    uses_postgres = "postgresql://localhost/app" in text
    if ".arq/bin/" in text:
        (tmp_path / ".arq").symlink_to(arq_environment())
    postgres_url = request.getfixturevalue("postgres_server").database("app") if uses_postgres else ""
    run(blocks(text), tmp_path, redis_url, redis_namespace, postgres_url)


@pytest.mark.parametrize("block", range(len(README)))
def test_readme_block_runs_alone(block: int, tmp_path: Path, redis_url: str, redis_namespace: str) -> None:
    run([README[block]], tmp_path, redis_url, redis_namespace)


def test_readme_commands_run(tmp_path: Path, redis_url: str, redis_namespace: str) -> None:
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "debian.txt").write_text("Debian was started by Ian Murdock.")
    console = "".join(code for language, code, _ in WHOLE_README if language == "console")
    for command, session in IN_A_SESSION.items():
        console, found = re.subn(rf"^\$ {re.escape(command)}(?=  |$)", f"$ {session}", console, flags=re.MULTILINE)
        assert found == 1, command
    out = run([("python", MY_APP, "myapp.py"), ("console", console, None)], tmp_path, redis_url, redis_namespace)
    assert "Ian Murdock" in out
    assert "Cancelled by" in out


@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_block_languages_match_execution(page: str) -> None:
    languages = {language for language, *_ in blocks((ROOT / page).read_text())}
    assert languages <= RUN_ALWAYS | NEVER_RUN
    fences = re.findall(r"^ *```(.*)$", (ROOT / page).read_text(), re.MULTILINE)
    assert all(fences[::2]), "a block without a language"
    assert not any(fences[1::2])


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *PAGES])
def test_every_link_resolves(page: str) -> None:
    path = ROOT / page
    text = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(), flags=re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []


MYPY = (
    "--strict", "--ignore-missing-imports", "--allow-untyped-decorators", "--allow-untyped-calls", "--no-error-summary",
    "--config-file=",
)  # fmt: skip
"""Decorators of Celery and Django are untyped without their stubs, and so is the `display` of IPython."""
TYPED = [
    page
    for page in ["README.md", *PAGES]
    if page not in IN_A_PROJECT and any(block[0] == "python" for block in blocks((ROOT / page).read_text()))
]


@pytest.mark.parametrize("page", TYPED)
def test_python_of_page_passes_type_checker(page: str, tmp_path: Path) -> None:
    session_of(blocks((ROOT / page).read_text()), tmp_path)
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.py"))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *MYPY, f"--cache-dir={ROOT / '.mypy_cache' / 'docs'}", *files],
        cwd=tmp_path, env={**os.environ, "MYPYPATH": f"{tmp_path}:{ROOT / 'src'}"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert files
    assert (done.returncode, done.stdout) == (0, "")
