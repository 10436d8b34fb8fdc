"""The script that fetches the demo's documents: it falls back without apt, and a second run does nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "demo_corpus.py"


def fetch(folder: Path, path: str) -> str:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)], capture_output=True, text=True, check=True, env={"PATH": path}
    )
    assert len(done.stdout.splitlines()) == 1
    return done.stdout


def test_without_apt_python_topics_are_used(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    said = fetch(folder, str(tmp_path))
    files = list(folder.iterdir())
    assert said.startswith(f"{len(files)} topics of Python's documentation")
    assert "apt-get" in said
    assert len(files) > 70
    assert all(file.suffix == ".txt" and file.stat().st_size for file in files)
    assert "fetched before" in fetch(folder, str(tmp_path))
