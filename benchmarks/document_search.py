"""`make bench ARGS="document_search --chunks 210000"`: measure searches in a document store of random chunks.

Median times of searches for ten hits, and the recall of approximate ones: the share of the ten exact hits that they find.
The vectors lie around random centres, as those of texts do. `--database postgresql://...` measures PostgreSQL.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milepost.documents.store import DocumentStore, open_store
from milepost.documents.store.database import Transaction
from milepost.documents.store.filters import DocumentFilter
from milepost.documents.words import query_terms

DIMENSION = 384
CENTRES = 5000
SPREAD = 1.0
CHUNKS_PER_DOCUMENT = 100
HITS = 10
BLOCK = 10_000
WORDS = [
    f"{first}{second}{third}" for first in "bdfgklmnprst" for second in ("a", "en", "ir", "ol") for third in range(400)
]
EVERY = DocumentFilter(since="2000-01-01")
"""All documents pass it, but a search with a filter is exact."""


class Vectors:
    """Unit vectors around random centres."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(1)
        self._centres = self._random.normal(size=(CENTRES, DIMENSION)).astype(np.float32)

    def draw(self, count: int) -> NDArray[np.float32]:
        """Return vectors, one a row."""
        found = self._centres[self._random.integers(0, CENTRES, count)]
        found = found + SPREAD * self._random.normal(size=found.shape).astype(np.float32)
        unit: NDArray[np.float32] = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
        return unit


def fill(store: DocumentStore, vectors: Vectors, chunks: int) -> None:
    """Fill an empty store with documents, without the steps of an ingestion."""
    generation = store.ensure_generation("random", DIMENSION, {"chunk_tokens": 256, "embedder": "hashing:384"})
    words = random.Random(1)
    database: Any = store._db
    for start in range(0, chunks, BLOCK):
        numbers = range(start + 1, min(start + BLOCK, chunks) + 1)
        found = vectors.draw(len(numbers))
        texts = [" ".join(words.choices(WORDS, k=60)) for _ in numbers]

        def work(tx: Transaction, numbers: range = numbers, found: Any = found, texts: Any = texts) -> None:
            names = {f"{(number - 1) // CHUNKS_PER_DOCUMENT:08}": None for number in numbers}
            tx.many(
                """INSERT INTO texts (text_id, format, title, characters, failed_pages, warnings, complete, begun_at)
                VALUES (?, 'text', '', 0, 0, '[]', 1, 0) ON CONFLICT DO NOTHING""",
                [(name,) for name in names],
            )
            tx.many(
                """INSERT INTO versions VALUES (?, ?, ?, ?, ?, 0, ?, ?, 1, ?, 0, 0) ON CONFLICT DO NOTHING""",
                [
                    (n, generation.number, n, f"file:///{int(n) % 100}/{n}.txt", n, n, n, CHUNKS_PER_DOCUMENT)
                    for n in names
                ],
            )
            tx.many(
                "INSERT INTO documents VALUES (?, ?, ?, '2026-01-01T00:00:00+00:00') ON CONFLICT DO NOTHING",
                [(generation.number, name, name) for name in names],
            )
            places = [(f"{(n - 1) // CHUNKS_PER_DOCUMENT:08}", (n - 1) % CHUNKS_PER_DOCUMENT) for n in numbers]
            keys = [number.to_bytes(32, "big") for number in numbers]
            tx.many(
                "INSERT INTO chunks VALUES (?, ?, ?, 0, 0, 60, '', NULL, ?, ?)",
                [
                    (version, ordinal, f"{version}-{ordinal}", text, key)
                    for (version, ordinal), text, key in zip(places, texts, keys, strict=True)
                ],
            )
            tx.many(
                "INSERT INTO vectors VALUES (?, ?, 0)",
                [(key, database.to_vector(vector)) for key, vector in zip(keys, found, strict=True)],
            )
            tx.many(
                "INSERT INTO index_entries VALUES (?, ?, ?, ?)",
                [(number, generation.number, *place) for number, place in zip(numbers, places, strict=True)],
            )
            tx.many(
                "INSERT INTO words (rowid, body) VALUES (?, ?)",
                [(n, database.to_words(text.split())) for n, text in zip(numbers, texts, strict=True)],
            )

        database.transact(work)
    database.transact(lambda tx: tx.run("UPDATE meta SET value = '1' WHERE name = 'revision'"))


def median(question: Callable[[int], object], times: int) -> float:
    """Return the median time of a call in milliseconds. It is called with 0, 1, ..."""
    took = []
    for number in range(times):
        began = time.perf_counter()
        question(number)
        took.append(1000 * (time.perf_counter() - began))
    return statistics.median(took)


def main(arguments: list[str]) -> None:
    """Fill a store, and measure it without and with the approximate index."""
    parser = argparse.ArgumentParser(prog='make bench ARGS="document_search ..."', description=__doc__)
    parser.add_argument("--chunks", type=int, default=10_000)
    parser.add_argument("--searches", type=int, default=20)
    parser.add_argument("--database", help="an empty store (default: a temporary SQLite file)")
    parser.add_argument("--first", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.first:
        store = open_store(asked.first)
        query = Vectors().draw(1)[0]
        print(f"{median(lambda _: store.search(HITS, vector=query), 1):.0f}")
        store.close()
        return
    with tempfile.TemporaryDirectory(prefix="milepost-bench-") as folder:
        name = asked.database or str(Path(folder, "documents.db"))
        measure(name, asked.chunks, asked.searches)


def measure(name: str, chunks: int, searches: int) -> None:
    """Print the figures of a store."""
    vectors = Vectors()
    store = open_store(name)
    began = time.perf_counter()
    fill(store, vectors, chunks)
    print(f"{chunks:,} chunks, filled in {time.perf_counter() - began:.0f} s", flush=True)
    queries = vectors.draw(searches)
    words = [query_terms(" ".join(random.Random(n).choices(WORDS, k=4))) for n in range(searches)]
    exact = [{hit.chunk_id for hit in store.search(HITS, vector=query, only=EVERY)} for query in queries]
    report(store, name, queries, words)
    generation = store.active_generation()
    assert generation is not None
    began = time.perf_counter()
    store.build_approximate_index(generation, 1, lambda: None)
    print(f"approximate index built in {time.perf_counter() - began:.0f} s", flush=True)
    report(store, name, queries, words)
    shares = [
        len(found & {hit.chunk_id for hit in store.search(HITS, vector=query)}) / HITS
        for found, query in zip(exact, queries, strict=True)
    ]
    print(f"recall of {HITS} hits: {statistics.mean(shares):.3f}", flush=True)
    store.close()


def report(store: DocumentStore, name: str, queries: NDArray[np.float32], words: list[Any]) -> None:
    """Print the times of searches."""
    count = len(queries)
    under = DocumentFilter("file:///7")
    first = subprocess.run(
        [sys.executable, "-m", "benchmarks.document_search", "--first", name],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    figures = {
        "first in a process": first,
        "meaning": f"{median(lambda n: store.search(HITS, vector=queries[n]), count):.0f}",
        "words": f"{median(lambda n: store.search(HITS, terms=words[n]), count):.0f}",
        "hybrid": f"{median(lambda n: store.search(HITS, vector=queries[n], terms=words[n]), count):.0f}",
        "under 1 %": f"{median(lambda n: store.search(HITS, vector=queries[n], only=under), count):.0f}",
    }
    print(", ".join(f"{what} {took} ms" for what, took in figures.items()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
