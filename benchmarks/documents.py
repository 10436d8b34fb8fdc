"""`make bench ARGS="documents"`: measure the document jobs on real manuals, each in its own process.

Seconds per stage, peak memory, and how true the progress was: the fraction that the job said when a quarter, a half
and three quarters of its time were over.

The manuals are Debian packages, fetched and unpacked without being installed. `--record` writes docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.demo_corpus import put_in_place, unpack

from benchmarks.markdown import machine, put_section, table

ROOT = Path(__file__).resolve().parent.parent
TITLE = "Document jobs"


@dataclass(frozen=True)
class Corpus:
    """A manual: its package, folder and files, and its default embedder."""

    package: str
    folder: str
    pattern: str
    model: str = "minilm"


CORPORA = (
    Corpus("debian-history", "usr/share/doc/debian-history/docs", "*.en.html"),
    Corpus("debian-policy", "usr/share/doc/debian-policy", "**/*.html"),
    Corpus("python3.13-doc", "usr/share/doc/python3.13/html", "**/*.html", "wordllama"),
)
JOBS: dict[str, dict[str, Any]] = {
    "ingestion": {},
    "extraction": {},
    "clustering": {"of": "chunks"},
    "reindex": {"chunk_tokens": 128},
}


def one_job(job_type: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Run a job in this process. Return its result and the peak memory (MB) of this process and of the loader."""
    import resource

    from milepost import InMemoryJobManager
    from milepost.documents.jobs import HANDLERS

    said: list[tuple[float, float]] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            said.append((time.monotonic(), run.fraction))

    with InMemoryJobManager().track(job_type) as run:
        watching = threading.Thread(target=watch)
        began = time.monotonic()
        watching.start()
        run.result = HANDLERS[job_type](run, **parameters)
        took = time.monotonic() - began
        over.set()
        watching.join()
    peaks = [
        resource.getrusage(who).ru_maxrss // 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]  # fmt: skip
    said_at = [
        max((fraction for at, fraction in said if at <= began + share * took), default=0.0)
        for share in (0.25, 0.5, 0.75)
    ]
    return {**run.result, "peak": peaks[0], "peak_of_child": peaks[1], "said": said_at}


def measure(job_type: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Run a job in its own process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.documents", "--job", job_type, json.dumps(parameters)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def rows_of(corpus: Corpus, model: str, folder: Path, *, tiny: bool) -> list[list[object]]:
    """Run the four jobs on a manual, and yield a table row for each."""
    documents, database = folder / "documents", str(folder / "documents.db")
    put_in_place(unpack(corpus.package, str(folder)) / corpus.folder, corpus.pattern, documents)
    if tiny:
        for path in sorted(path for path in documents.rglob("*") if path.is_file())[2:]:
            path.unlink()
    rows: list[list[object]] = []
    for job_type, parameters in JOBS.items():
        given = {**parameters, "database": database}
        if job_type == "ingestion":
            given |= {"paths": [str(documents)], "model": model}
        result = measure(job_type, given)
        size = {
            "ingestion": lambda r: f"{r['ingested']:,} documents, {r['chunks']:,} chunks",
            "extraction": lambda r: f"{r['entities']:,} entities, {r['relations']:,} relations",
            "clustering": lambda r: f"{r['nodes']:,} chunks, {r['edges']:,} edges",
            "reindex": lambda r: f"{r['chunks']:,} chunks",
        }[job_type](result)
        stages = ", ".join(f"{name} {seconds:.2g}" for name, seconds in result["seconds"].items())
        child = f" + {result['peak_of_child']} MB" if job_type == "ingestion" else ""
        row: list[object] = [
            job_type, f"{corpus.package} ({model})", size, f"{sum(result['seconds'].values()):.1f} s", stages,
            f"{result['peak']} MB{child}", " ".join(f"{fraction:.0%}" for fraction in result["said"]),
        ]  # fmt: skip
        print("  ".join(map(str, row)), flush=True)
        rows.append(row)
    return rows


def main(arguments: list[str]) -> None:
    """Measure the requested manuals."""
    parser = argparse.ArgumentParser(prog='make bench ARGS="documents ..."', description=__doc__)
    parser.add_argument("packages", nargs="*", help=f"choose from {', '.join(corpus.package for corpus in CORPORA)}")
    parser.add_argument("--model", help="use this embedder instead of the default of a manual")
    parser.add_argument(
        "--tiny", action="store_true", help="use two documents of each, only to check that everything runs"
    )
    parser.add_argument("--record", action="store_true", help="write the results to docs/benchmarks.md")
    parser.add_argument("--job", nargs=2, metavar=("TYPE", "JSON"), help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.job:
        print(json.dumps(one_job(asked.job[0], json.loads(asked.job[1]))))
        return
    unknown = set(asked.packages) - {corpus.package for corpus in CORPORA}
    if unknown:
        parser.error(f"no manual {unknown.pop()!r}; there are {', '.join(corpus.package for corpus in CORPORA)}")
    rows = []
    for corpus in CORPORA:
        if not asked.packages or corpus.package in asked.packages:
            with tempfile.TemporaryDirectory(prefix="milepost-bench-") as folder:
                rows += rows_of(corpus, asked.model or corpus.model, Path(folder), tiny=asked.tiny)
    if asked.record:
        head = [
            "job",
            "manual (embedder)",
            "size",
            "in all",
            "seconds per stage",
            "peak memory",
            "said at ¼, ½, ¾ of the time",
        ]
        put_section(
            TITLE,
            f'`make bench ARGS="documents --record"`: each job in a process of its own, one after another; with ingestion'
            f" the peak of the child that reads the files stands beside. {machine()}\n\n{table(head, rows)}",
        )


if __name__ == "__main__":
    main(sys.argv[1:])
