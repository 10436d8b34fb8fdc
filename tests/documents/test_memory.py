"""The memory of an ingestion does not grow with the number of documents."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import resource, sys
from milepost import InMemoryJobManager
from milepost.documents.jobs import HANDLERS

folder, database = sys.argv[1:]
with InMemoryJobManager().track("ingestion") as run:
    result = HANDLERS["ingestion"](run, [folder], database=database, model="hashing:64")
assert not result["failed"]
print(result["chunks"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
MEGABYTES = 30


def peak(folder: Path, documents: int) -> tuple[int, int]:
    """Return (chunks, MB) of an ingestion of this many documents in its own process."""
    texts = folder / str(documents)
    texts.mkdir()
    for number in range(documents):
        (texts / f"{number}.txt").write_text(
            "\n\n".join(f"Document {number}, part {n}. " + "word " * 150 for n in range(6))
        )
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(texts), str(folder / f"{documents}.db")],
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    chunks, megabytes = map(int, done.stdout.split())
    return chunks, megabytes


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_memory_does_not_grow_with_documents(tmp_path: Path) -> None:
    few, many = peak(tmp_path, 60), peak(tmp_path, 600)
    assert many[0] == 10 * few[0]
    assert many[1] - few[1] < MEGABYTES, (few, many)
