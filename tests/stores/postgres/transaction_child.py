"""A program that inserts a row, submits a job in the same transaction, says so, and then commits or waits to be killed."""

from __future__ import annotations

import sys
import time

import psycopg

from milepost import Jobs, Settings

url, namespace, number, end = sys.argv[1:]
jobs = Jobs(url, options=Settings(namespace=namespace))
with psycopg.connect(url) as connection:
    connection.execute("INSERT INTO orders VALUES (%s)", (int(number),))
    jobs.using(connection).submit("ship", {"order": int(number)}, job_id=f"order-{number}")
    if end == "commit":
        connection.commit()
    print("ready", flush=True)
    time.sleep(300)
