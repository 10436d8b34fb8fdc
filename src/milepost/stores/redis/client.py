"""Send requests to Redis until they are answered: retries, redirects, and the mapping of errors.

A request that cannot be sent is retried for `connect_budget` seconds and then raises StoreUnavailableError. Once it was
sent, its outcome may be unknown: it is sent again with the same operation ids for up to `retry_budget` seconds and then
raises OutcomeUnknownError, also if the server refuses the retry. A read gives up after `connect_budget`. redis-py
itself retries nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis

from milepost.core.defaults import RETRY_PAUSE
from milepost.core.errors import OutcomeUnknownError, StoreError, StoreFullError, StoreUnavailableError
from milepost.stores.redis.connect import Connector, Target
from milepost.stores.redis.connection import Arg, Call, ConnectionLost, ConnectionPool, RedisConnection
from milepost.stores.redis.scripts import Script

REPLY_SECONDS = 5.0
SLOWEST_LINK = 256 * 1024
"""Bytes per second. The timeout of larger requests grows accordingly; smaller ones share one timeout, because changing
the timeout of a socket costs a system call."""
FIRST_PAUSE = 0.02
TRANSIENT_ERRORS = frozenset({"LOADING", "TRYAGAIN", "ASK", "CLUSTERDOWN", "BUSY", "UNBLOCKED"})
"""Errors that are temporary. ASK and TRYAGAIN last while the slot of the namespace moves to another node: its keys are on
two nodes then, and no script may run on either. To ensure that, each script names a key that exists (the layout) and one
that never exists (the prefix), so that a node with only one of them refuses."""
NOT_MASTER_ERRORS = frozenset({"READONLY", "MASTERDOWN"})
"""Errors of a server that accepts no writes: the connection is closed and the master is looked up again."""

pack = cast(Callable[[tuple[Arg, ...]], bytes], hiredis.pack_command)


class _RetryBudget:
    """Decides how long one request is retried."""

    def __init__(self, port: RedisClient, *, writes: bool) -> None:
        self._client = port
        self._started = time.monotonic()
        self._pause = FIRST_PAUSE
        self.writes = writes
        self.sent = False

    def check(self, why: str) -> float:
        """Return the seconds to wait before the next attempt. Raises the error of the request after its budget."""
        unknown = self.sent and self.writes
        budget = self._client.retry_budget if unknown else self._client.connect_budget
        pause = self._pause * random.uniform(0.5, 1.0)
        self._pause = min(RETRY_PAUSE, self._pause * 2)
        if time.monotonic() - self._started + pause > budget:
            if unknown:
                raise OutcomeUnknownError(f"request not answered within {budget:g} s; it may have been applied ({why})")
            raise StoreUnavailableError(f"store not reachable for {budget:g} s ({why})")
        return pause


class RedisClient:
    """Sends requests for one namespace over the connections of one pool."""

    def __init__(
        self, target: Target, pool: ConnectionPool, prefix: bytes, *, connect_budget: float, retry_budget: float
    ) -> None:
        self.shown = target.shown
        self._pool = pool
        self._connector = Connector(target, pool, prefix)
        self._prefix = prefix
        self._layout = prefix + b"layout"
        self.connect_budget = connect_budget
        self.retry_budget = retry_budget

    async def call(self, script: Script, *args: Arg) -> Any:
        """Run one script and return its reply."""
        payload = self._packed((script, args))
        try:
            link = self._pool.ready() or await self._pool.acquire(self._connector.connect_to_master)
        except ConnectionLost as error:
            return (await self._retry(((script, args),), error, sent=False))[0]
        try:
            (reply,) = await link.exchange(payload, 1, _reply_seconds(payload))
        except ConnectionLost as error:
            link.close()
            return (await self._retry(((script, args),), error, sent=True))[0]
        except BaseException:
            self._drop(link)
            raise
        self._pool.release(link)
        if isinstance(reply, hiredis.ReplyError):
            return (await self._retry(((script, args),), reply, sent=False))[0]
        return reply

    async def call_all(self, *calls: Call) -> list[Any]:
        """Run scripts in order, in one round trip, and return their replies.

        Each script is sent with its source the first time: if the server did not know one, a later one would run first.
        """
        whole = {number for number, call in enumerate(calls) if call[0] not in {c[0] for c in calls[:number]}}
        return await self._retry(calls, None, sent=False, whole=whole)

    async def command(self, *words: Arg) -> Any:
        """Run a read command and return its reply, which may be a `hiredis.ReplyError`."""
        trials = _RetryBudget(self, writes=False)
        while True:
            try:
                link = await self._pool.acquire(self._connector.connect_to_master)
                (reply,) = await self._exchange(link, pack(words), 1)
            except ConnectionLost as error:
                await self._pool.pause(trials.check(str(error)))
                continue
            node = self._redirected(reply)
            if not node and _word(reply) not in TRANSIENT_ERRORS | NOT_MASTER_ERRORS:
                return reply
            await self._pool.pause(trials.check(str(reply)))

    async def ask(self, *words: Arg) -> Any:
        """Run a read command and return its reply. Raises StoreError if the server refuses it."""
        reply = await self.command(*words)
        if isinstance(reply, hiredis.ReplyError):
            raise _error(reply)
        return reply

    async def wait(self, words: Sequence[tuple[Arg, ...]], seconds: float) -> list[Any]:
        """Run commands that block up to `seconds` on an exclusive connection, which is closed if the caller is cancelled.

        Raises ConnectionLost if the connection breaks, StoreUnavailableError if none can be made.
        """
        trials = _RetryBudget(self, writes=False)
        while True:
            try:
                link = await self._pool.acquire_blocking(self._connector.connect_to_master)
            except ConnectionLost as error:
                await self._pool.pause(trials.check(str(error)))
                continue
            try:
                replies = await link.exchange(b"".join(map(pack, words)), len(words), seconds + REPLY_SECONDS)
            except BaseException:
                link.close()
                raise
            refused = [reply for reply in replies if isinstance(reply, hiredis.ReplyError)]
            if not refused:
                self._pool.release_blocking(link)
                return replies
            link.close()
            if not self._redirected(refused[0]) and _word(refused[0]) not in TRANSIENT_ERRORS | NOT_MASTER_ERRORS:
                raise _error(refused[0])
            await self._pool.pause(trials.check(str(refused[0])))

    async def close(self) -> None:
        """Close all connections."""
        if self._connector.watch is not None:
            self._connector.watch.end()
        await self._pool.close()

    async def _retry(
        self, calls: Sequence[Call], before: Exception | None, *, sent: bool, whole: set[int] | None = None
    ) -> list[Any]:
        """Run scripts until each is answered; `before` is the result of a first attempt of the first one, if any."""
        trials = _RetryBudget(self, writes=any(script.writes for script, _ in calls))
        replies: list[Any] = [None] * len(calls)
        missing = list(range(len(calls)))
        whole = whole or set()  # the calls that are sent with their source
        answers: list[Any] = []
        if isinstance(before, ConnectionLost):
            trials.sent = sent
            await self._pool.pause(trials.check(str(before)))
        elif before is not None:
            answers = [before]
        while True:
            if not answers:
                payload = b"".join(self._packed(calls[i], text=i in whole) for i in missing)
                try:
                    link = await self._pool.acquire(self._connector.connect_to_master)
                except ConnectionLost as error:
                    await self._pool.pause(trials.check(str(error)))
                    continue
                trials_sent, trials.sent = trials.sent, True
                try:
                    answers = await self._exchange(link, payload, len(missing))
                except ConnectionLost as error:
                    await self._pool.pause(trials.check(str(error)))
                    continue
                trials.sent = trials_sent
            missing, why, refused = self._sort(answers, missing, replies, whole)
            if refused is not None:
                if trials.writes and (trials.sent or any(reply is not None for reply in replies)):
                    part = "an earlier attempt" if trials.sent else "a part of it"
                    raise OutcomeUnknownError(
                        f"request refused, but {part} may have been applied: {refused}"
                    ) from refused
                raise refused
            answers = []
            if not missing:
                return replies
            if why:
                await self._pool.pause(trials.check(why))

    def _packed(self, call: Call, *, text: bool = False) -> bytes:
        """Return an encoded request; with `text` it contains the source of the script."""
        script, args = call
        command, name = (b"EVAL", script.source) if text else (b"EVALSHA", script.sha)
        return pack((command, name, b"2", self._prefix, self._layout, *args))

    def _sort(
        self, answers: list[Any], missing: list[int], replies: list[Any], whole: set[int]
    ) -> tuple[list[int], str, StoreError | None]:
        """Store the replies; return the calls to send again, the reason to wait before that, and the final error."""
        left: list[int] = []
        why, refused = "", None
        for number, answer in zip(missing, answers, strict=True):
            if not isinstance(answer, hiredis.ReplyError):
                replies[number] = answer
                continue
            left.append(number)
            word = _word(answer)
            if word == "NOSCRIPT":
                whole.add(number)
            elif self._redirected(answer) or word in TRANSIENT_ERRORS | NOT_MASTER_ERRORS:
                why = str(answer)
            else:
                refused = refused or _error(answer)
        return left, why, refused

    async def _exchange(self, link: RedisConnection, payload: bytes, replies: int) -> list[Any]:
        try:
            answers = await link.exchange(payload, replies, _reply_seconds(payload))
        except ConnectionLost:
            link.close()
            raise
        except BaseException:
            self._drop(link)
            raise
        self._pool.release(link)
        return answers

    def _redirected(self, reply: Any) -> bool:
        """Return whether an error says that the master is another server; if so, reset the connections."""
        word = _word(reply)
        if word == "MOVED":
            self._connector.moved(str(reply).split()[2])
        elif word not in NOT_MASTER_ERRORS:
            return False
        self._pool.reset()
        return True

    def _drop(self, link: RedisConnection) -> None:
        """Discard a connection whose caller was cancelled: on a socket the reply would come later; async ones handle it."""
        if self._pool.blocking:
            link.close()


def _reply_seconds(payload: bytes) -> float:
    return REPLY_SECONDS + len(payload) // SLOWEST_LINK


def _word(reply: Any) -> str:
    """Return the code of an error reply, or empty for any other reply."""
    return str(reply).partition(" ")[0] if isinstance(reply, hiredis.ReplyError) else ""


def _error(reply: Exception) -> StoreError:
    """Return the exception for an error reply of the server."""
    word = _word(reply)
    if word == "OOM":
        return StoreFullError(f"Redis is out of memory: {reply}")
    if word in ("NOAUTH", "WRONGPASS", "NOPERM", "MISCONF", "NOREPLICAS"):
        return StoreUnavailableError(f"Redis refused the request: {reply}", temporary=word in ("MISCONF", "NOREPLICAS"))
    return StoreError(f"Redis refused the request: {reply}")
