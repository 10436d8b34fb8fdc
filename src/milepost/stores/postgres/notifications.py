"""Wake-ups between processes by LISTEN and NOTIFY, in a thread with a connection of its own.

NOTIFY takes a lock of the whole server at the commit, so none is sent in a transaction of jobs: those of a process are sent
together, at most one in 20 ms. They only shorten waits: a lost one is made up for by the next poll.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import select
import threading
import time
from collections.abc import Mapping
from typing import Any

import psycopg

from milepost.forks import reset_after_fork
from milepost.stores.waiters import Waiters

INTERVAL = 0.02
"""The least time between two NOTIFY, in seconds."""
# The lock is held while the transaction is flushed to disk, so this one is not flushed: no notification survives a crash.
NOTIFY = "SELECT set_config('synchronous_commit', 'off', true), pg_notify(%s, %s)"
RECONNECT_SECONDS = 5.0
CLOSE_SECONDS = 1.0

log = logging.getLogger("milepost.store")


class Notifications:
    """The wake-ups of one namespace in this process. Safe for threads and across a fork."""

    def __init__(self, given: Mapping[str, Any], schema: str, waiters: Waiters) -> None:
        self._given = given
        self._waiters = waiters
        self._channel = "milepost_" + hashlib.blake2b(schema.encode(), digest_size=8).hexdigest()
        self._reset()
        reset_after_fork(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._sender = secrets.token_hex(8)
        self._thread: threading.Thread | None = None
        self._wake = (-1, -1)
        self._pending = ""
        self._listens = self._is_closing = False

    def notify(self, *, has_events: bool, wakes_workers: bool) -> None:
        """Wake the waiters of this process now, and those of other processes soon."""
        self._waiters.notify(has_events=has_events, wakes_workers=wakes_workers)
        what = "e" * has_events + "w" * wakes_workers
        if not set(what) <= set(self._pending):
            with self._lock:
                self._start()
                self._pending = "".join(sorted({*self._pending, *what}))
                self._awaken()

    def listen(self) -> None:
        """Let other processes wake the waiters of this one from now on."""
        if not self._listens:
            with self._lock:
                self._start()
                self._listens = True
                self._awaken()

    def close(self) -> None:
        """Send what is pending and end the thread. It starts again at the next use."""
        with self._lock:
            thread = self._thread
            if thread is None:
                return
            self._is_closing = True
            self._awaken()
        thread.join(CLOSE_SECONDS)

    def after_fork(self) -> None:
        """Forget the thread and its connection, which only the parent has."""
        wake = self._wake
        self._reset()
        for descriptor in wake:
            if descriptor >= 0:
                os.close(descriptor)

    def _start(self) -> None:
        if self._thread is None or self._is_closing:
            self._is_closing = False
            self._wake = os.pipe()
            self._thread = threading.Thread(
                target=self._run, args=(self._wake,), name="milepost-notifications", daemon=True
            )
            self._thread.start()

    def _awaken(self) -> None:
        os.write(self._wake[1], b"x")

    # --- the thread ---

    def _run(self, wake: tuple[int, int]) -> None:
        try:
            while not self._has_ended(wake):
                try:
                    with psycopg.connect(**self._given, autocommit=True, prepare_threshold=None) as connection:
                        self._serve(connection, wake)
                except psycopg.Error as error:
                    log.debug("no wake-ups between processes, polling: %s", error)
                    self._pending = ""
                    until = time.monotonic() + RECONNECT_SECONDS
                    while not self._has_ended(wake) and (left := until - time.monotonic()) > 0:
                        _readable(left, wake[0])
        finally:
            with self._lock:
                if self._wake == wake:
                    self._thread, self._wake, self._listens = None, (-1, -1), False
            os.close(wake[0])
            os.close(wake[1])

    def _has_ended(self, wake: tuple[int, int]) -> bool:
        return self._is_closing or self._wake != wake

    def _serve(self, connection: psycopg.Connection[Any], wake: tuple[int, int]) -> None:
        """Send and receive until the end."""
        connection.add_notify_handler(lambda received: self._received(received.payload))
        # A pooler gives each transaction another connection to the server, which is none to listen on.
        (backend,) = connection.execute("SELECT pg_backend_pid()").fetchone() or (0,)
        can_listen, listening, sent_at = backend == connection.info.backend_pid, False, 0.0
        while True:
            if self._listens and can_listen and not listening:
                connection.execute(f"LISTEN {self._channel}")
                listening = True
                self._waiters.notify_all()  # what came before is found now
            wait = sent_at + INTERVAL - time.monotonic() if self._pending else None
            if self._pending and (self._is_closing or (wait is not None and wait <= 0)):
                with self._lock:
                    what, self._pending = self._pending, ""
                connection.execute(NOTIFY, (self._channel, f"{self._sender} {what}"))
                sent_at = time.monotonic()
                continue
            if self._has_ended(wake):
                return
            if connection.fileno() in _readable(wait, wake[0], connection.fileno()):
                connection.pgconn.consume_input()
                while received := connection.pgconn.notifies():
                    self._received(received.extra.decode())

    def _received(self, payload: str) -> None:
        sender, _, what = payload.partition(" ")
        if sender != self._sender:
            self._waiters.notify(has_events="e" in what, wakes_workers="w" in what)


def _readable(seconds: float | None, wake: int, *more: int) -> set[int]:
    """Wait until one of these descriptors can be read, or for some seconds, and return which can; empty the first."""
    poll = select.poll()
    for descriptor in (wake, *more):
        poll.register(descriptor, select.POLLIN)
    found = {descriptor for descriptor, _ in poll.poll(None if seconds is None else max(0.0, seconds) * 1000)}
    if wake in found:
        os.read(wake, 65536)
    return found
