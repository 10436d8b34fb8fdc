"""Every Python and console block of the README and of the documentation is run, page by page, as its reader would."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.running import ROOT, blocks, run

PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
ELSEWHERE = {"docs/documents.md"}
"""Run by tests/documents/test_documentation.py, with documents to read."""
RUN = [
    page
    for page in PAGES
    if page not in ELSEWHERE
    and {language for language, *_ in blocks((ROOT / page).read_text())} & {"python", "console", "sh"}
]
RUN_ALWAYS, NEVER_RUN = {"python", "console", "sh"}, {"ini", "yaml", "text", "html"}
README = [block for block in blocks((ROOT / "README.md").read_text()) if block[0] == "python"]


@pytest.mark.parametrize("page", RUN)
def test_a_page_runs_as_it_stands(page: str, tmp_path: Path, redis_url: str, redis_namespace: str) -> None:
    run(blocks((ROOT / page).read_text()), tmp_path, redis_url, redis_namespace)


@pytest.mark.parametrize("block", range(len(README)))
def test_a_block_of_the_readme_runs_alone(block: int, tmp_path: Path, redis_url: str, redis_namespace: str) -> None:
    run([README[block]], tmp_path, redis_url, redis_namespace)


@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_the_language_of_a_block_says_whether_it_is_run(page: str) -> None:
    languages = {language for language, *_ in blocks((ROOT / page).read_text())}
    assert languages <= RUN_ALWAYS | NEVER_RUN
    fences = re.findall(r"^ *```(.*)$", (ROOT / page).read_text(), re.MULTILINE)
    assert all(fences[::2]), "a block without a language"
    assert not any(fences[1::2])


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *PAGES])
def test_every_link_leads_somewhere(page: str) -> None:
    path = ROOT / page
    text = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(), flags=re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []
