"""One request until it is answered. Owns retries, redirections and what an error means; knows no verb.

A request that cannot be sent is tried again for `connect_budget` seconds, then it is StoreUnavailable. Once it was sent
its outcome may be unknown: it is sent again, with the same operation ids, for up to `retry_budget` seconds, and then it
is OutcomeUnknown; one that writes nothing is given up after `connect_budget`. redis-py retries nothing here.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis

from milepost.core.errors import OutcomeUnknown, StoreError, StoreFull, StoreUnavailable
from milepost.stores.redis.dialing import Dialer, Target
from milepost.stores.redis.links import Call, Link, LinkDown, Wires, Word
from milepost.stores.redis.scripts import Script

REPLY_SECONDS = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.5
PASSING = frozenset({"LOADING", "TRYAGAIN", "ASK", "CLUSTERDOWN", "BUSY", "UNBLOCKED"})
"""Answers that pass by themselves. ASK and TRYAGAIN last while the slot of the namespace moves to another node: its keys
are on two nodes then, and no script can run on either. To be sure of that each script names a key that is there, the
layout's, and one that never is, the prefix: a node that has only one of them refuses."""
ELSEWHERE = frozenset({"READONLY", "MASTERDOWN"})
"""Answers of a server that does not take writes: the connection is given up and the master looked for again."""

pack = cast(Callable[[tuple[Word, ...]], bytes], hiredis.pack_command)


class _Trials:
    """How often a request was tried, and whether it may be tried again."""

    def __init__(self, port: Port, *, writes: bool) -> None:
        self._port = port
        self._started = time.monotonic()
        self._pause = FIRST_PAUSE
        self._writes = writes
        self.sent = False

    def check(self, why: str) -> float:
        """The seconds to wait before the next trial. Raises the error of the request when its time is over."""
        unknown = self.sent and self._writes
        budget = self._port.retry_budget if unknown else self._port.connect_budget
        pause = self._pause * random.uniform(0.5, 1.0)
        self._pause = min(LONGEST_PAUSE, self._pause * 2)
        if time.monotonic() - self._started + pause > budget:
            if unknown:
                raise OutcomeUnknown(f"sent, and not answered within {budget:g} s; it may have been applied ({why})")
            raise StoreUnavailable(f"the store was not reachable for {budget:g} s ({why})")
        return pause


class Port:
    """Requests to one namespace, over wires of one kind."""

    def __init__(
        self, target: Target, wires: Wires, prefix: bytes, *, connect_budget: float, retry_budget: float
    ) -> None:
        self.shown = target.shown
        self._wires = wires
        self._dialer = Dialer(target, wires, prefix)
        self._prefix = prefix
        self._layout = prefix + b"layout"
        self._heads: dict[bytes, bytes] = {}
        self.connect_budget = connect_budget
        self.retry_budget = retry_budget

    async def call(self, script: Script, *args: Word) -> Any:
        """Run one script; its reply."""
        payload = self._packed((script, args))
        try:
            link = self._wires.ready() or await self._wires.take(self._dialer.dial)
        except LinkDown as error:
            return (await self._again(((script, args),), error, sent=False))[0]
        try:
            (reply,) = await link.exchange(payload, 1, REPLY_SECONDS)
        except LinkDown as error:
            link.close()
            return (await self._again(((script, args),), error, sent=True))[0]
        except BaseException:
            self._drop(link)
            raise
        self._wires.give(link)
        if isinstance(reply, hiredis.ReplyError):
            return (await self._again(((script, args),), reply, sent=False))[0]
        return reply

    async def call_all(self, *calls: Call) -> list[Any]:
        """Run scripts, one after the other, in one round trip; their replies.

        Each is sent with its text the first time it occurs: if one of them were missing there, a later one would run before it.
        """
        whole = {number for number, call in enumerate(calls) if call[0] not in {c[0] for c in calls[:number]}}
        return await self._again(calls, None, sent=False, whole=whole)

    async def command(self, *words: Word) -> Any:
        """Run a command that changes nothing. Its reply may be a `hiredis.ReplyError`."""
        trials = _Trials(self, writes=False)
        while True:
            try:
                (reply,) = await self._exchange(pack(words), 1)
            except LinkDown as error:
                await self._wires.pause(trials.check(str(error)))
                continue
            node = self._redirected(reply)
            if not node and _word(reply) not in PASSING | ELSEWHERE:
                return reply
            await self._wires.pause(trials.check(str(reply)))

    async def ask(self, *words: Word) -> Any:
        """Run a command that changes nothing and must be answered. Raises StoreError for a refusal."""
        reply = await self.command(*words)
        if isinstance(reply, hiredis.ReplyError):
            raise _error(reply)
        return reply

    async def wait(self, words: Sequence[tuple[Word, ...]], seconds: float) -> list[Any]:
        """Run commands that wait up to `seconds`, on a connection of their own; it is closed when the caller gives up.

        Raises LinkDown when the connection breaks, StoreUnavailable when none can be made.
        """
        trials = _Trials(self, writes=False)
        while True:
            try:
                link = await self._wires.take_own(self._dialer.dial)
            except LinkDown as error:
                await self._wires.pause(trials.check(str(error)))
                continue
            try:
                replies = await link.exchange(b"".join(map(pack, words)), len(words), seconds + REPLY_SECONDS)
            except BaseException:
                link.close()
                raise
            refused = [reply for reply in replies if isinstance(reply, hiredis.ReplyError)]
            if not refused:
                self._wires.give_own(link)
                return replies
            link.close()
            if not self._redirected(refused[0]) and _word(refused[0]) not in PASSING | ELSEWHERE:
                raise _error(refused[0])
            await self._wires.pause(trials.check(str(refused[0])))

    async def close(self) -> None:
        """Give back all connections."""
        await self._wires.close()

    async def _again(
        self, calls: Sequence[Call], before: Exception | None, *, sent: bool, whole: set[int] | None = None
    ) -> list[Any]:
        """Run scripts until each is answered; `before` is what became of the first trial of the first one, if any."""
        trials = _Trials(self, writes=any(script.writes for script, _ in calls))
        replies: list[Any] = [None] * len(calls)
        missing = list(range(len(calls)))
        whole = whole or set()  # those whose text is sent
        answers: list[Any] = []
        if isinstance(before, LinkDown):
            trials.sent = sent
            await self._wires.pause(trials.check(str(before)))
        elif before is not None:
            answers = [before]
        while True:
            if not answers:
                payload = b"".join(self._packed(calls[i], text=i in whole) for i in missing)
                try:
                    link = await self._wires.take(self._dialer.dial)
                except LinkDown as error:
                    await self._wires.pause(trials.check(str(error)))
                    continue
                trials_sent, trials.sent = trials.sent, True
                try:
                    answers = await self._talk(link, payload, len(missing))
                except LinkDown as error:
                    await self._wires.pause(trials.check(str(error)))
                    continue
                trials.sent = trials_sent
            missing, why = self._sort(answers, missing, replies, whole)
            answers = []
            if not missing:
                return replies
            if why:
                await self._wires.pause(trials.check(why))

    def _packed(self, call: Call, *, text: bool = False) -> bytes:
        """A request. Each word costs, so those that are the same in each request of a script are packed once."""
        script, args = call
        head = None if text else self._heads.get(script.sha)
        if head is None:
            called = (b"EVAL", script.source) if text else (b"EVALSHA", script.sha)
            head = _words(pack((*called, b"2", self._prefix, self._layout)))
            if not text:
                self._heads[script.sha] = head
        return b"*%d\r\n%b%b" % (5 + len(args), head, _words(pack(tuple(args))))

    def _sort(
        self, answers: list[Any], missing: list[int], replies: list[Any], whole: set[int]
    ) -> tuple[list[int], str]:
        """Keep the replies that are there: which calls to send again, and why after a pause."""
        left: list[int] = []
        why = ""
        for number, answer in zip(missing, answers, strict=True):
            if not isinstance(answer, hiredis.ReplyError):
                replies[number] = answer
                continue
            left.append(number)
            word = _word(answer)
            if word == "NOSCRIPT":
                whole.add(number)
            elif self._redirected(answer) or word in PASSING | ELSEWHERE:
                why = str(answer)
            else:
                raise _error(answer)
        return left, why

    async def _talk(self, link: Link, payload: bytes, replies: int) -> list[Any]:
        try:
            answers = await link.exchange(payload, replies, REPLY_SECONDS)
        except LinkDown:
            link.close()
            raise
        except BaseException:
            self._drop(link)
            raise
        self._wires.give(link)
        return answers

    async def _exchange(self, payload: bytes, replies: int) -> list[Any]:
        return await self._talk(await self._wires.take(self._dialer.dial), payload, replies)

    def _redirected(self, reply: Any) -> bool:
        """Whether the answer says that the master is elsewhere; then connections are made anew."""
        word = _word(reply)
        if word == "MOVED":
            self._dialer.moved(str(reply).split()[2])
        elif word not in ELSEWHERE:
            return False
        self._wires.forget()
        return True

    def _drop(self, link: Link) -> None:
        """A caller gave up while it waited: a socket would get its reply later, a shared connection takes care of it."""
        if self._wires.blocking:
            link.close()


def _words(packed: bytes) -> bytes:
    """The packed words without their number, which stands before them."""
    return packed[packed.index(b"\n") + 1 :]


def _word(reply: Any) -> str:
    """The first word of an error; empty for any other reply."""
    return str(reply).partition(" ")[0] if isinstance(reply, hiredis.ReplyError) else ""


def _error(reply: Exception) -> StoreError:
    """What a refusal of the server means to callers."""
    word = _word(reply)
    if word == "OOM":
        return StoreFull(f"Redis has no memory left: {reply}")
    if word in ("NOAUTH", "WRONGPASS", "NOPERM", "MISCONF", "NOREPLICAS"):
        return StoreUnavailable(f"Redis refuses: {reply}")
    return StoreError(f"Redis refuses: {reply}")
