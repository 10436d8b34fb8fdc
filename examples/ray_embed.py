"""Embed a corpus with Ray as one job, with progress per result and cancellation of the tasks.

export MILEPOST_URL=sqlite:///jobs.db
python examples/ray_embed.py                        (watch it with `milepost ls -w`, stop it with `milepost cancel`)
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from hashlib import blake2b

import ray
from ray.util import as_completed

from milepost import JobCancelled, get_job_manager

CORPUS = [
    f"Note {number}: the {'engine' if number % 3 else 'loom'} weaves pattern {number % 7}" for number in range(200)
]
DIMENSIONS = 32


@ray.remote(max_retries=0)
def embed(text: str, pause: float) -> tuple[str, list[float]]:
    """Return a text and its vector, made from word hashes; `pause` simulates a slow model."""
    time.sleep(pause)
    vector = [0.0] * DIMENSIONS
    for word in text.lower().split():
        vector[blake2b(word.encode(), digest_size=1).digest()[0] % DIMENSIONS] += 1.0
    return text, vector


def main(pause: float = 0.05) -> None:
    """Embed the corpus with two local processes."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    manager = get_job_manager()
    index: dict[str, list[float]] = {}
    with suppress(JobCancelled), manager.track("embedding", metadata={"title": "The notes, on Ray"}) as run:
        futures = [embed.remote(text, pause) for text in CORPUS]
        try:
            for text, vector in run.each(as_completed(futures, chunk_size=1), total=len(futures), unit="text"):
                index[text] = vector  # noqa: PERF403 - the loop is the job
        finally:
            _, left = ray.wait(futures, num_returns=len(futures), timeout=0, fetch_local=False)
            for future in left:
                ray.cancel(future, force=True)  # none unless the job was cancelled; force kills what runs
        run.result = {"texts": len(index)}
    ray.shutdown()
    job = manager.get_job(run.job_id)
    assert job is not None
    print(f"{job.status}: {len(index)} of {len(CORPUS)} texts, {len(left)} futures cancelled")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.05)
