"""The least that any client can spend: raw sockets and bytes that were made before."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable

from benchmarks.environment import Environment
from benchmarks.job_ticks import tick

RECORD = (
    b'{"job_id":"%s","job_type":"bench","status":"completed","progress":1.0,"message":"done",'
    b'"created_at":"2026-11-25T01:00:00.000000+00:00","started_at":"2026-11-25T01:00:00.000000+00:00",'
    b'"completed_at":"2026-11-25T01:00:00.000000+00:00","error":null,"result":{"text":"%s"},"metadata":{"text":"%s"}}'
)


def command(*parts: bytes) -> bytes:
    """Return a command in the protocol of Redis."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def caller(port: int) -> Callable[[bytes], bytes]:
    """Return a function that sends bytes and reads one short answer."""
    connection = _connect(port)

    def call(request: bytes) -> bytes:
        connection.sendall(request)
        return connection.recv(65536)

    return call


def lifecycle(environment: Environment) -> float:
    """13 round trips a job, each of 400 bytes."""
    call = caller(environment.port)
    request = command(b"SET", b"job:1", b"x" * 400)
    begin = time.perf_counter()
    for _ in range(environment.size * 13):
        call(request)
    return environment.size / (time.perf_counter() - begin)


def lifecycle_coalesced(environment: Environment) -> float:
    """Send the 13 writes of a job in one pipeline."""
    call = caller(environment.port)
    request = command(b"SET", b"job:1", b"x" * 400) * 13
    begin = time.perf_counter()
    for _ in range(environment.size):
        got = call(request)
        while got.count(b"\r\n") < 13:
            got += call(b"")
    return environment.size / (time.perf_counter() - begin)


def loop_step(environment: Environment) -> float:
    """Run a bare loop with one method call per step."""

    class Counter:
        n = 0

        def step(self) -> None:
            self.n += 1

    step = Counter().step
    begin = time.perf_counter()
    for _ in range(environment.size):
        step()
    return (time.perf_counter() - begin) / environment.size * 1e9


def list_failed(environment: Environment) -> float:
    """Send one ZREVRANGE and one MGET of 100 records, read as bytes."""
    connection = _connect(environment.port)
    reader = connection.makefile("rb")
    ids = [str(uuid.uuid4()).encode() for _ in range(environment.size)]
    for start in range(0, len(ids), 500):
        part = ids[start : start + 500]
        text = b"".join(
            command(b"SET", b"job:" + i, RECORD % (i, b"r" * 100, b"m" * 100))
            + command(b"ZADD", b"index", b"%d" % n, i)
            for n, i in enumerate(part, start)
        )
        connection.sendall(text)
        for _ in range(2 * len(part)):
            reader.readline()
    spent = []
    for _ in range(200):
        begin = time.perf_counter()
        connection.sendall(command(b"ZREVRANGE", b"index", b"0", b"99"))
        found = _array(reader)
        connection.sendall(command(b"MGET", *(b"job:" + i for i in found)))
        _array(reader)
        spent.append(time.perf_counter() - begin)
    return sorted(spent)[100] * 1000


list_newest = list_label = list_failed


def _array(reader) -> list[bytes]:  # type: ignore[no-untyped-def]
    count = int(reader.readline()[1:])
    found = []
    for _ in range(count):
        size = int(reader.readline()[1:])
        found.append(reader.read(size + 2)[:-2])
    return found


def used_memory(port: int) -> int:
    """Return the memory that Redis reports as used, in bytes."""
    text = caller(port)(command(b"INFO", b"memory"))
    return int(text.split(b"used_memory:")[1].split(b"\r\n")[0])


def record_memory(environment: Environment) -> float:
    """Store one JSON string per record, without any index."""
    call = caller(environment.port)
    before = used_memory(environment.port)
    for _ in range(environment.size):
        i = str(uuid.uuid4()).encode()
        call(command(b"SET", b"job:" + i, RECORD % (i, b"r" * 100, b"m" * 100)))
    return (used_memory(environment.port) - before) / environment.size


# ---- a queue of one list: a script takes an id and stores a result; nothing else is kept

TAKE = b"""
local ids = redis.call("LPOP", KEYS[1], ARGV[1])
if not ids then return 0 end
for _, id in ipairs(ids) do redis.call("SET", id, ARGV[2]) end
return #ids
"""


class Connected:
    """Submits by one script a job: the record and its place in the list."""

    SUBMIT = b'redis.call("SET", KEYS[1], ARGV[1]) redis.call("RPUSH", KEYS[2], KEYS[1]) return 1'

    def __init__(self, url: str) -> None:
        self._connection = _connect(int(url.split(":")[2].split("/")[0]))
        self._n = 0
        self._connection.sendall(command(b"SCRIPT", b"LOAD", self.SUBMIT))
        self._digest = self._connection.recv(100).split(b"\r\n")[1]

    def _request(self) -> bytes:
        self._n += 1
        return command(b"EVALSHA", self._digest, b"2", b"job:%d" % self._n, b"queue", b"x" * 400)

    async def submit(self) -> None:
        """Submit in one round trip."""
        self._connection.sendall(self._request())
        self._connection.recv(100)

    async def submit_many(self, count: int) -> None:
        """Submit the jobs in one pipeline."""
        self._connection.sendall(b"".join(self._request() for _ in range(count)))
        got = 0
        while got < count:
            got += self._connection.recv(65536).count(b"\r\n")


connect = Connected


def work(url: str, batch: int = 1) -> None:
    """Run one script for each `batch` jobs, and a blocking read when the list is empty."""
    connection = _connect(int(url.split(":")[2].split("/")[0]))
    connection.sendall(command(b"SCRIPT", b"LOAD", TAKE))
    digest = connection.recv(100).split(b"\r\n")[1]
    take = command(b"EVALSHA", digest, b"1", b"queue", b"%d" % batch, b"x" * 400)
    wait = command(b"BLPOP", b"queue", b"0")
    while True:
        connection.sendall(take)
        found = int(connection.recv(100)[1:-2])
        if not found:
            connection.sendall(wait)
            connection.recv(200)
            found = 1
        for _ in range(found):
            tick()


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection
