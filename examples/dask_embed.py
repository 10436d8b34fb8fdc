"""Embed a corpus on a Dask cluster as one job, with progress per result and cancellation of the futures.

export MILEPOST_URL=sqlite:///jobs.db
python examples/dask_embed.py                       (watch it with `milepost ls -w`, stop it with `milepost cancel`)
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from hashlib import blake2b

from distributed import Client, LocalCluster, as_completed

from milepost import JobCancelled, get_job_manager

CORPUS = [
    f"Note {number}: the {'engine' if number % 3 else 'loom'} weaves pattern {number % 7}" for number in range(200)
]
DIMENSIONS = 32


def embed(text: str, pause: float) -> tuple[str, list[float]]:
    """Return a text and its vector, made from word hashes; `pause` simulates a slow model."""
    time.sleep(pause)
    vector = [0.0] * DIMENSIONS
    for word in text.lower().split():
        vector[blake2b(word.encode(), digest_size=1).digest()[0] % DIMENSIONS] += 1.0
    return text, vector


def main(pause: float = 0.05) -> None:
    """Embed the corpus with two local processes."""
    manager = get_job_manager()
    index: dict[str, list[float]] = {}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
        suppress(JobCancelled),
        manager.track("embedding", metadata={"title": "The notes, on Dask"}) as run,
    ):
        futures = client.map(embed, CORPUS, pause=pause, pure=False)
        try:
            for future in run.each(as_completed(futures), total=len(futures), unit="text"):
                text, vector = future.result()
                index[text] = vector
        finally:
            left = [future for future in futures if not future.done()]
            client.cancel(left)  # none unless the job was cancelled: what has not begun never does
        run.result = {"texts": len(index)}
    job = manager.get_job(run.job_id)
    assert job is not None
    print(f"{job.status}: {len(index)} of {len(CORPUS)} texts, {len(left)} futures cancelled")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.05)
