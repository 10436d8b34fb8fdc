"""tqdm: the progress bar that Python people know. It shows, and keeps nothing."""

from __future__ import annotations

import io
import time

from benchmarks.environment import Environment


def loop_step(environment: Environment) -> float:
    """Run a loop with a bar that is drawn into nowhere."""
    from tqdm import tqdm

    begin = time.perf_counter()
    for _ in tqdm(range(environment.size), file=io.StringIO()):
        pass
    return (time.perf_counter() - begin) / environment.size * 1e9


def stage_advance(environment: Environment) -> float:
    """Call `update()` for each step."""
    from tqdm import tqdm

    bar = tqdm(total=environment.size, file=io.StringIO())
    update = bar.update
    begin = time.perf_counter()
    for _ in range(environment.size):
        update()
    return (time.perf_counter() - begin) / environment.size * 1e9
