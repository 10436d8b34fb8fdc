"""Take one sample in its own process: `python -m benchmarks.run_sample WORK PEER PORT SIZE` prints its figures as JSON."""

from __future__ import annotations

import importlib
import json
import sys
import time

from benchmarks.environment import Environment, pin


def main() -> None:
    """Run one workload of one peer, and print the figure and the CPU time of this process."""
    work, peer, port, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    pin(1)
    environment = Environment(size, f"redis://127.0.0.1:{port}/0" if port else "", port)
    do = getattr(importlib.import_module(f"benchmarks.peers.{peer}"), work.lower())
    before = time.process_time()
    figure = do(environment)
    print(json.dumps({"figure": figure, "cpu": time.process_time() - before}))


if __name__ == "__main__":
    main()
