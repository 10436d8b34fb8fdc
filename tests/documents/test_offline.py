"""The document jobs run with every connection refused, because models come with the installed packages.

The refusal is an audit hook in `sitecustomize`, so it applies to every Python process that a test starts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents.sample_files import PARAGRAPHS

ROOT = Path(__file__).parents[2]
REFUSAL = """
import os, sys

def refuse(event, args):
    if event in ("socket.getaddrinfo", "socket.gethostbyname") or (
        event in ("socket.connect", "socket.sendto") and not isinstance(args[1], (str, bytes))
    ):
        print("REFUSED", event, args, file=sys.stderr, flush=True)
        os._exit(66)

sys.addaudithook(refuse)
"""
PROGRAM = """
import sys
from milepost import InMemoryJobManager
from milepost.documents import search
from milepost.documents.jobs import HANDLERS

folder, database = sys.argv[1:]
manager = InMemoryJobManager()
for job_type, given in (
    ("ingestion", {"paths": [folder], "model": "minilm"}),
    ("extraction", {"extractor": "rules"}),
    ("reindex", {"model": "wordllama", "chunk_tokens": 64}),
    ("clustering", {"of": "chunks"}),
):
    with manager.track(job_type) as run:
        run.result = HANDLERS[job_type](run, database=database, **given)
print(search("Who wrote notes on the engine?", 1, database=database)[0].text)
"""


@pytest.fixture
def offline(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which no Python process reaches a network."""
    guard = tmp_path / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(REFUSAL)
    return {**os.environ, "PYTHONPATH": str(guard)}


def run(command: list[str], environment: dict[str, str], folder: Path, seconds: float = 250) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=seconds
    )
    assert "REFUSED" not in done.stderr, done.stderr[-2000:]
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def test_control_connection_is_refused(offline: dict[str, str], tmp_path: Path) -> None:
    for attempt in ("socket.create_connection(('127.0.0.1', 9))", "socket.socket().connect(('10.0.0.1', 9))"):
        with pytest.raises(AssertionError, match="REFUSED"):
            run([sys.executable, "-c", f"import socket; {attempt}"], offline, tmp_path)


@pytest.mark.timeout(300)
def test_all_jobs_run_without_a_network(offline: dict[str, str], folder: Path, tmp_path: Path) -> None:
    (folder / "a.txt").write_text("\n\n".join(PARAGRAPHS * 4))
    (folder / "b.html").write_text(f"<h1>Engines</h1><p>{PARAGRAPHS[0]}</p>")
    said = run([sys.executable, "-c", PROGRAM, str(folder), str(tmp_path / "documents.db")], offline, tmp_path)
    assert "Ada Lovelace" in said


@pytest.mark.timeout(300)
def test_the_demo_runs_without_a_network(offline: dict[str, str], tmp_path: Path) -> None:
    """`make demo` as written, once its documents are fetched."""
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    corpus = tmp_path / ".demo" / "corpus"
    corpus.mkdir(parents=True)
    for number, paragraph in enumerate(PARAGRAPHS):
        (corpus / f"{number}.en.html").write_text(f"<h1>Chapter {number}</h1><p>{paragraph}</p>")
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, code in (
        ("python", ""),
        ("milepost", '-c "import sys; from milepost.cli import main; sys.exit(main())"'),
    ):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {code} "$@"\n')
        (programs / name).chmod(0o755)
    said = run(["sh", "scripts/demo.sh"], offline, tmp_path)
    assert "Ada Lovelace" in said
    assert "Three tracked jobs have processed real documents" in said
    assert (tmp_path / ".demo" / "entities.svg").read_text().startswith("<svg")
