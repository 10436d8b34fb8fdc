"""A worker whose handlers write a row and finish in one transaction. Each fork of it works with connections of its own.

It reads lines: the microseconds after which a child that runs one job is killed, and "drain" if it is to run all. It answers
with how the child ended, so that one warm process serves hundreds of kills.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import psycopg

from milepost import Jobs, Run, Settings

url, namespace = sys.argv[1:]
jobs = Jobs(url, options=Settings(namespace=namespace, lease=2, heartbeat=0.5, sweep=0.5))
ready_to_die = threading.Event()


@jobs.job("ship", max_attempts=1000, on_lost="retry")
def ship(run: Run, order: int) -> int:
    with psycopg.connect(url) as db:
        db.execute("INSERT INTO orders VALUES (%s)", (order,))
        ready_to_die.set()
        return run.finish(order, using=db)


def kill_after(micros: int) -> None:
    """End this process without a trace some time after the row was written."""
    ready_to_die.wait()
    time.sleep(micros / 1_000_000)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Publish the type, and serve lines. Only children have threads, which may hold a lock when their process is forked."""
    if os.fork() == 0:
        with jobs.run_workers():
            pass
        os._exit(0)
    os.wait()
    print("ready", flush=True)
    for line in sys.stdin:
        micros, *drain = line.split()
        child = os.fork()
        if child == 0:
            threading.Thread(target=kill_after, args=(int(micros),), daemon=True).start()
            jobs.worker(concurrency=1, max_jobs=None if drain else 1, exit_when_idle=5).run()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


main()
