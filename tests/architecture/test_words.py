"""Names and texts use the words of the glossary."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture import words
from tests.architecture.test_architecture import ROOT, tracked_files

REJECTED = words.pattern(words.rejected((ROOT / "docs" / "glossary.md").read_text()))
# The page and the tests of the job-management component API keep its texts to the letter; a changelog tells of the past.
EXEMPT = ("tests/original/", "docs/original.md", "docs/glossary.md", "requirements/")


def checked_files() -> list[Path]:
    """Return the tracked files that hold names or texts of ours."""
    return [
        path
        for path in tracked_files()
        if path.suffix in words.SUFFIXES and not path.relative_to(ROOT).as_posix().startswith(EXEMPT)
    ]


def test_no_file_uses_a_rejected_word() -> None:
    assert words.found_in_files(checked_files(), ROOT, REJECTED) == []


@pytest.mark.parametrize(
    "planted",
    [
        "def shelf_get(key): ...",
        "class OutlookOfARun: ...",
        "# whoever reads this file",
        '"""Draw a bar. Knows no store."""',
        "# nobody reads this any more",
        'log.warning("the store is away: %s", error)',
        'help="Not before so long from now."',
        "<p>What runs goes on.</p>",
        "-- the pulse of a worker",
        "The worker was told to stop, whoever asked.",
    ],
)
def test_planted_sentence_is_found(planted: str) -> None:
    assert list(words.found_in(planted, REJECTED))


@pytest.mark.parametrize("good", ["interface", "surface", "classroom", "unfold", "a longer sentence", "impulse"])
def test_word_that_contains_a_rejected_one_is_accepted(good: str) -> None:
    assert list(words.found_in(good, REJECTED)) == []
