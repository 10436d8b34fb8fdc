"""The least that any client can spend: raw sockets and bytes that were made before."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable

from benchmarks.environment import Environment

RECORD = (
    b'{"job_id":"%s","job_type":"bench","status":"completed","progress":1.0,"message":"done",'
    b'"created_at":"2026-11-25T01:00:00.000000+00:00","started_at":"2026-11-25T01:00:00.000000+00:00",'
    b'"completed_at":"2026-11-25T01:00:00.000000+00:00","error":null,"result":{"text":"%s"},"metadata":{"text":"%s"}}'
)


def command(*parts: bytes) -> bytes:
    """A command in the protocol of Redis."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def caller(port: int) -> Callable[[bytes], bytes]:
    """A function that sends bytes and reads one short answer."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call(request: bytes) -> bytes:
        connection.sendall(request)
        return connection.recv(65536)

    return call


def w1(environment: Environment) -> float:
    """13 round trips a job, each of 400 bytes."""
    call = caller(environment.port)
    request = command(b"SET", b"job:1", b"x" * 400)
    begin = time.perf_counter()
    for _ in range(environment.size * 13):
        call(request)
    return environment.size / (time.perf_counter() - begin)


def w1b(environment: Environment) -> float:
    """The 13 writes of a job in one pipeline."""
    call = caller(environment.port)
    request = command(b"SET", b"job:1", b"x" * 400) * 13
    begin = time.perf_counter()
    for _ in range(environment.size):
        got = call(request)
        while got.count(b"\r\n") < 13:
            got += call(b"")
    return environment.size / (time.perf_counter() - begin)


def w4(environment: Environment) -> float:
    """A bare loop with one call of a method a step."""

    class Counter:
        n = 0

        def step(self) -> None:
            self.n += 1

    step = Counter().step
    begin = time.perf_counter()
    for _ in range(environment.size):
        step()
    return (time.perf_counter() - begin) / environment.size * 1e9


def w5(environment: Environment) -> float:
    """One ZREVRANGE and one MGET of 100 records, read as bytes."""
    connection = socket.create_connection(("127.0.0.1", environment.port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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


w5all = w5label = w5


def _array(reader) -> list[bytes]:  # type: ignore[no-untyped-def]
    count = int(reader.readline()[1:])
    found = []
    for _ in range(count):
        size = int(reader.readline()[1:])
        found.append(reader.read(size + 2)[:-2])
    return found


def used_memory(port: int) -> int:
    """What Redis says that it uses, in bytes."""
    text = caller(port)(command(b"INFO", b"memory"))
    return int(text.split(b"used_memory:")[1].split(b"\r\n")[0])


def w6(environment: Environment) -> float:
    """One JSON string a record, without any index."""
    call = caller(environment.port)
    before = used_memory(environment.port)
    for _ in range(environment.size):
        i = str(uuid.uuid4()).encode()
        call(command(b"SET", b"job:" + i, RECORD % (i, b"r" * 100, b"m" * 100)))
    return (used_memory(environment.port) - before) / environment.size
