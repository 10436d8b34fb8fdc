"""tqdm: the progress bar that Python people know. It shows, and keeps nothing."""

from __future__ import annotations

import io
import time

from benchmarks.environment import Environment


def w4(environment: Environment) -> float:
    """A bar around a loop, drawn into nowhere."""
    from tqdm import tqdm

    begin = time.perf_counter()
    for _ in tqdm(range(environment.size), file=io.StringIO()):
        pass
    return (time.perf_counter() - begin) / environment.size * 1e9


def w4b(environment: Environment) -> float:
    """`update()` for each step."""
    from tqdm import tqdm

    bar = tqdm(total=environment.size, file=io.StringIO())
    update = bar.update
    begin = time.perf_counter()
    for _ in range(environment.size):
        update()
    return (time.perf_counter() - begin) / environment.size * 1e9
