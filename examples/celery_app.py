"""A Celery application as there are many: an import and a decorator of milepost make one of its tasks a job.

redis-server &
export MILEPOST_URL=sqlite:///jobs.db
cd examples
celery -A celery_app worker &
milepost serve &                                    (the task is in the dashboard, beside any other job)
python celery_app.py
"""

from __future__ import annotations

import os
import time

from celery import Celery

from milepost.engines.celery import tracked

BROKER = os.environ.get("CELERY_BROKER", "redis://localhost")
app = Celery("celery_app", broker=BROKER, backend=BROKER)
app.conf.broker_connection_retry_on_startup = True


@tracked
@app.task(autoretry_for=(ConnectionError,), max_retries=3)
def thumbnails(album: str, pictures: int, pause: float = 0.05) -> dict[str, object]:
    """Make small pictures of large ones."""
    for _ in range(pictures):
        time.sleep(pause)
    return {"album": album, "pictures": pictures}


@app.task
def greet(name: str) -> str:
    """A task without the decorator goes on as it was."""
    return f"Hello {name}"


if __name__ == "__main__":
    sent = thumbnails.delay("summer", 40)
    print(f"{sent.id}: {sent.get()}")
