"""A Celery application in which an import and a decorator of milepost make one task a job.

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

from milepost.integrations.celery import tracked

BROKER = os.environ.get("CELERY_BROKER", "redis://localhost")
app = Celery("celery_app", broker=BROKER, backend=BROKER)
app.conf.broker_connection_retry_on_startup = True


@tracked
@app.task(autoretry_for=(ConnectionError,), max_retries=3)
def thumbnails(album: str, pictures: int, pause: float = 0.05) -> dict[str, object]:
    """Create thumbnails of pictures."""
    for _ in range(pictures):
        time.sleep(pause)
    return {"album": album, "pictures": pictures}


@app.task
def greet(name: str) -> str:
    """Greet; a task without the decorator is unchanged."""
    return f"Hello {name}"


if __name__ == "__main__":
    sent = thumbnails.delay("summer", 40)
    print(f"{sent.id}: {sent.get()}")
