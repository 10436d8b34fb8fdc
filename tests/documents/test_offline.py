"""The document jobs with every connection refused: what was installed is enough, and nobody is asked for models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents.writing import PARAGRAPHS

PROGRAM = """
import socket, sys

def refuse(*args, **kwargs):
    raise AssertionError(f"a connection was tried: {args}")

class Refused(socket.socket):
    connect = connect_ex = refuse

socket.socket = Refused
socket.create_connection = socket.getaddrinfo = socket.gethostbyname = refuse

from milepost import InMemoryJobManager
from milepost.documents import search
from milepost.documents.jobs import HANDLERS

folder, database, extractor = sys.argv[1:]
manager = InMemoryJobManager()
for job_type, given in (
    ("ingestion", {"paths": [folder], "model": "minilm"}),
    ("extraction", {"extractor": extractor}),
    ("reindex", {"chunk_tokens": 64}),
    ("clustering", {"of": "chunks"}),
):
    with manager.track(job_type) as run:
        run.result = HANDLERS[job_type](run, database=database, **given)
print(search("Who wrote notes on the engine?", 1, database=database)[0].text)
"""


@pytest.mark.parametrize("extractor", ["spacy", "rules"])
def test_all_jobs_run_without_a_network(extractor: str, folder: Path, tmp_path: Path) -> None:
    if extractor == "spacy":
        pytest.importorskip("spacy")
    (folder / "a.txt").write_text("\n\n".join(PARAGRAPHS * 4))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(tmp_path / "documents.db"), extractor],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Ada Lovelace" in done.stdout
