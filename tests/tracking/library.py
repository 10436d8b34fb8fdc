"""A library that knows nothing of milepost: it shows its work with bars of tqdm and says things with `logging`.

Also the jobs that use it, for workers and for the command line (``--app tests.tracking.library:jobs``).
"""

from __future__ import annotations

import asyncio
import io
import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tqdm import tqdm

from milepost import Jobs, Run, Secret

log = logging.getLogger("some.library")
jobs = Jobs()
NO_SECRET = Secret("")


def nowhere() -> io.StringIO:
    """A terminal that nobody sees."""
    return io.StringIO()


def embed(chunks: Iterable[Any], look: Callable[[Any], object] | None = None, **options: Any) -> int:
    """Work on each of some chunks, with a bar; `look` is called for each."""
    done = 0
    for chunk in tqdm(chunks, **{"desc": "Embedding", "unit": "chunk", "file": nowhere(), **options}):
        if look is not None:
            look(chunk)
        done += 1
    log.warning("embedded %d chunks", done)
    return done


def redact(text: str) -> str:
    """What nobody may see is the number of the card."""
    if "unreadable" in text:
        raise ValueError("cannot read that")
    return text.replace("4111-1111", "[card]")


@jobs.job("embedding")
def embedding(run: Run, count: int, pause: float = 0.01) -> int:
    """A job that calls the library, and says nothing itself."""
    return embed(range(count), lambda _: time.sleep(pause))


@jobs.job("embedding-alone", isolation="process")
def embedding_alone(run: Run, count: int, secret: Secret = NO_SECRET) -> int:
    """The same in a process of its own, also in threads of it; it tells its secret and a number."""
    log.info("an information")
    print("printed")
    log.error("the secret is %s, the card 4111-1111", secret)
    thread = threading.Thread(target=log.error, args=("from a thread",))
    thread.start()
    thread.join()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(embed, range(count), desc="Embedding 4111-1111").result()


@jobs.job("embedding-async")
async def embedding_async(run: Run, count: int) -> int:
    """The same in an event loop, once here and once in a thread."""
    await asyncio.to_thread(embed, range(count), desc="In a thread")
    return embed(range(count), desc="In the loop")


@jobs.job("embedding-for-ever")
def embedding_for_ever(run: Run) -> None:
    """The library at work that never looks at its run."""
    embed(iter(int, 1), lambda _: time.sleep(0.001))
