"""A library without any use of milepost, which shows progress by tqdm and logs with `logging`; and jobs that use it.

The jobs are for workers and for the command line (``--app tests.run.tqdm_library:jobs``).
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
    """Return a stream that discards its text, as a terminal."""
    return io.StringIO()


def embed(chunks: Iterable[Any], look: Callable[[Any], object] | None = None, **options: Any) -> int:
    """Process chunks with a bar; `look` is called for each."""
    done = 0
    for chunk in tqdm(chunks, **{"desc": "Embedding", "unit": "chunk", "file": nowhere(), **options}):
        if look is not None:
            look(chunk)
        done += 1
    log.warning("embedded %d chunks", done)
    return done


def redact(text: str) -> str:
    """Mask card numbers; raise for unreadable text."""
    if "unreadable" in text:
        raise ValueError("cannot read that")
    return text.replace("4111-1111", "[card]")


@jobs.job("embedding")
def embedding(run: Run, count: int, pause: float = 0.01) -> int:
    """Call the library, and report nothing of its own."""
    return embed(range(count), lambda _: time.sleep(pause))


@jobs.job("embedding-alone", isolation="process")
def embedding_alone(run: Run, count: int, secret: Secret = NO_SECRET) -> int:
    """Call the library in a child process and its threads; print the secret and a card number."""
    log.info("an information")
    print("printed")
    log.error("the secret is %s, the card 4111-1111", secret)
    with run.item("order-1"):
        raise ValueError("card 4111-1111 refused")
    thread = threading.Thread(target=log.error, args=("from a thread",))
    thread.start()
    thread.join()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(embed, range(count), desc="Embedding 4111-1111").result()


@jobs.job("embedding-async")
async def embedding_async(run: Run, count: int) -> int:
    """Call the library in an event loop, directly and in a thread."""
    await asyncio.to_thread(embed, range(count), desc="In a thread")
    return embed(range(count), desc="In the loop")


@jobs.job("embedding-for-ever")
def embedding_for_ever(run: Run) -> None:
    """Run a loop of the library that never checks its run."""
    embed(iter(int, 1), lambda _: time.sleep(0.001))
