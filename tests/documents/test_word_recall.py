"""The words of real manuals arrive: at least .99 of those that `pandoc` and `pdftotext` find."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from scripts.demo_corpus import unpack

from milepost.documents import load
from tests.documents.corpora import debian_manuals
from tests.services import need

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]
LEAST = 0.99
REPEATED = 3
LETTERS = re.compile(r"[^\W\d_]+")


def words(text: str) -> Counter[str]:
    """Count the words of a text. Ligatures, which one program splits, count as their letters."""
    return Counter(LETTERS.findall(text.casefold().replace("ﬁ", "fi").replace("ﬂ", "fl").replace("ﬀ", "ff")))


def recall(loaded: str, reference: str) -> tuple[int, int]:
    """Return how many words of the reference are in the loaded text, and how many there are."""
    wanted = words(reference)
    return (wanted & words(loaded)).total(), wanted.total()


def without_running_heads(text: str) -> str:
    """Return the text of `pdftotext` without the first and last lines of pages that several pages have, as an ingestion
    leaves them out.
    """
    pages = [[line for line in page.splitlines() if line.strip()] for page in text.split("\f")]
    outer = Counter(_head(line) for page in pages for line in (*page[:2], *page[-2:]))
    kept = [line for page in pages for line in page if outer[_head(line)] < REPEATED]
    return "\n".join(kept)


def _head(line: str) -> str:
    return re.sub(r"[\d\s]+", " ", line).strip()


def text_of(path: Path) -> str:
    """Return the text of a file as an ingestion reads it."""
    return "".join(piece.text for piece in load(path))


def output(*command: str | Path) -> str:
    """Return what a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout


@pytest.mark.service("pandoc")
@pytest.mark.parametrize("suffix", ["html", "docx", "odt", "epub"])
def test_words_that_pandoc_finds_arrive(suffix: str, tmp_path: Path) -> None:
    pandoc = need("pandoc")
    found = total = 0
    for page in sorted((debian_manuals("english", tmp_path) / "debian-faq").glob("*.html")):
        reference = output(pandoc, "-f", "html", "-t", "plain", "--wrap=none", page)
        path = page
        if suffix != "html":
            path = tmp_path / f"{page.stem}.{suffix}"
            output(pandoc, "-f", "html", "-o", path, page)
        here, there = recall(text_of(path), reference)
        found, total = found + here, total + there
    assert total > 10_000
    assert found / total >= LEAST, f"{found} of {total}"


@pytest.mark.service("pdftotext")
def test_words_that_pdftotext_finds_arrive(tmp_path: Path) -> None:
    pdf = next(unpack("debian-policy", str(tmp_path)).rglob("*.pdf*"))
    if pdf.suffix == ".gz":
        unpacked = tmp_path / "policy.pdf"
        with unpacked.open("wb") as file:
            subprocess.run(["gzip", "-dc", pdf], stdout=file, check=True)
        pdf = unpacked
    found, total = recall(text_of(pdf), without_running_heads(output(need("pdftotext"), pdf, "-")))
    assert total > 10_000
    assert found / total >= LEAST, f"{found} of {total}"
