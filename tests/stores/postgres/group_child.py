"""A program that ends the members of groups, or submits the jobs that wait for these groups, at the same time as others."""

from __future__ import annotations

import sys

from milepost import Jobs, Settings

url, namespace, count, what = sys.argv[1:]
jobs = Jobs(url, options=Settings(namespace=namespace))
jobs.count_jobs()
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(count)):
    if what == "wait":
        jobs.submit("load", {}, job_id=f"waiter-{number}", after=[f"group:{number}", f"job:{number}-single"])
    else:
        jobs.update_job(f"{number}-{what}", status="completed")
