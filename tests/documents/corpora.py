"""Real documents for tests: Debian packages that are fetched once per test run, and never installed.

If they cannot be fetched, a test is skipped, and fails in CI.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.demo_corpus import put_in_place, unpack

from tests.services import absent

SCRIPT = Path(__file__).parents[2] / "scripts" / "demo_corpus.py"
FETCHED = Path(tempfile.gettempdir()) / f"milepost-corpora-{os.getuid()}"


def debian_history(folder: Path) -> Path:
    """Fetch the nine pages of the demo with the script that the demo uses."""
    return _copied(_history(), folder / "debian-history")


QUESTIONS = Path(__file__).parent / "questions"
"""Questions over the manuals: half of them names, commands and codes."""
_DOC = "usr/share/doc"
_MANUALS = {
    "english": (
        ("debian-reference-en", f"{_DOC}/debian-reference-common/docs", "*.en.html"),
        ("developers-reference", "usr/share/developers-reference", "*.html"),
        ("debian-faq", f"{_DOC}/debian/FAQ", "*.en.html"),
    ),
    "french_german": (
        ("debian-faq-fr", f"{_DOC}/debian/FAQ/fr", "*.html"),
        ("debian-faq-de", f"{_DOC}/debian/FAQ/de", "*.html"),
    ),
}


def debian_manuals(language: str, folder: Path) -> Path:
    """Fetch the manuals that the questions `QUESTIONS / f"{language}.csv"` are about: `english` or `french_german`."""
    return _copied(_manuals(language), folder / language)


def debian_policy(folder: Path) -> Path:
    """Fetch the Debian Policy Manual as HTML and text: about 50 documents."""
    return _copied(_policy(), folder / "debian-policy")


@functools.cache
def _history() -> Path:
    corpus = FETCHED / "history"
    FETCHED.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(corpus)], capture_output=True, text=True, check=True, timeout=300
    )
    if not list(corpus.glob("*.en.html")):
        shutil.rmtree(corpus)
        absent(done.stdout.strip())
    return corpus


@functools.cache
def _policy() -> Path:
    corpus = FETCHED / "debian-policy"
    if not corpus.is_dir():
        FETCHED.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="milepost-policy-") as cache:
            try:
                put_in_place(unpack("debian-policy", cache) / "usr/share/doc/debian-policy", "**/*.html", corpus)
            except (OSError, subprocess.SubprocessError) as error:
                absent(f"debian-policy could not be fetched: {error}")
    return corpus


@functools.cache
def _manuals(language: str) -> Path:
    corpus = FETCHED / language
    for package, folder, pattern in _MANUALS[language]:
        if not (corpus / package).is_dir():
            corpus.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="milepost-manual-") as cache:
                try:
                    pages = unpack(package, cache) / folder
                    (pages / "developers-reference.html").unlink(missing_ok=True)  # all its chapters once more
                    put_in_place(pages, pattern, corpus / package)
                except (OSError, subprocess.SubprocessError) as error:
                    absent(f"{package} could not be fetched: {error}")
    return corpus


def _copied(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target
