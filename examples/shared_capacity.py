"""Tenants share an API that allows few calls at once: a limit over all workers, and turns between tenants.

Start as many workers as you like in this folder, and submit the work of two tenants::

    MILEPOST_URL=sqlite:///jobs.db milepost worker shared_capacity:jobs
    MILEPOST_URL=sqlite:///jobs.db python shared_capacity.py acme=200 globex=10

`globex` does not wait for the end of the 200 jobs of `acme`. `milepost limit` shows what runs.
"""

from __future__ import annotations

import os
import sys
import time

from milepost import Jobs, Run

jobs = Jobs()
SECONDS = float(os.environ.get("CALL_SECONDS", "0.5"))


@jobs.job("embed", max_attempts=3)
def embed(run: Run, page: int) -> int:
    """Call the API for one page. Replace the sleep by the call."""
    time.sleep(SECONDS)
    return page


@jobs.job("summarise", max_attempts=3)
def summarise(run: Run, page: int) -> int:
    """Call the same API for another purpose: it counts under the same limit."""
    time.sleep(SECONDS)
    return page


def submit(tenant: str, pages: int) -> None:
    """Submit the work of one tenant."""
    for page in range(pages):
        for handler in (embed, summarise):
            jobs.submit(handler.options(limit_key="model-api", partition=tenant), page=page)


if __name__ == "__main__":
    jobs.limit("model-api", running=4, per_partition=2)
    for word in sys.argv[1:]:
        name, _, number = word.partition("=")
        submit(name, int(number))
