"""Namespaces over one, two and three nodes of a Redis Cluster, each drained by its own worker process.

All nodes share a CPU here, so wall time says nothing of more nodes: what counts is the CPU a job, which must not grow, how
evenly the nodes are loaded, and that no namespace waits for another.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count, pairwise
from typing import Any

from benchmarks.environment import Server, free_port, private_redis
from benchmarks.sampler import DRAIN_EVERY, PeerFailedError, Ticks, WorkerProcess, cpu_seconds, fifo, worker_process
from benchmarks.surveys import Table, figure

SLOTS = 16384
NAMESPACES = 6


def survey(size: int) -> Table:
    """Drain `size` no-op jobs in six namespaces."""
    jobs = max(size // NAMESPACES // DRAIN_EVERY, 1) * DRAIN_EVERY
    rows = []
    for nodes in (1, 2, 3):
        with _cluster(nodes) as servers:
            rows.append([str(nodes), str(NAMESPACES), *_drain(servers, jobs)])
    notes = [
        "The busiest node's share is of the CPU of all nodes. Fairness is Jain's index of the jobs that each namespace has done "
        "when the first of them has done all of its own: 1 is even, 1/6 is one namespace alone."
    ]
    columns = ["nodes", "namespaces", "jobs/s", "workers us/job", "Redis us/job", "busiest node", "fairness"]
    return Table("cluster", columns, rows, notes)


@contextmanager
def _cluster(nodes: int) -> Iterator[list[Server]]:
    """Run connected masters with equal shares of the slots."""
    import redis

    with ExitStack() as stack:
        buses = [free_port() for _ in range(nodes)]
        servers = [
            stack.enter_context(private_redis("--cluster-enabled", "yes", "--cluster-port", str(bus))) for bus in buses
        ]
        clients: list[Any] = [redis.Redis(port=server.port, decode_responses=True) for server in servers]
        for client, (low, high) in zip(clients, _parts(nodes), strict=True):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", low, high - 1)
        for server, bus in zip(servers[1:], buses[1:], strict=True):
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", server.port, bus)
        over = time.monotonic() + 30
        while not all("cluster_state:ok" in _info(client) for client in clients):
            if time.monotonic() > over:
                raise PeerFailedError("the nodes of the Cluster did not agree within 30 s")
            time.sleep(0.1)
        for client in clients:
            client.close()
        yield servers


def _parts(nodes: int) -> list[tuple[int, int]]:
    return list(pairwise(SLOTS * n // nodes for n in range(nodes + 1)))


def _info(client: Any) -> str:
    info = client.execute_command("CLUSTER", "INFO")
    return "\n".join(f"{name}:{value}" for name, value in info.items()) if isinstance(info, dict) else str(info)


def _names(nodes: int) -> list[str]:
    """Return namespaces whose slots are spread evenly over the nodes, as an operator would choose them."""
    from redis.crc import key_slot

    wanted = [NAMESPACES // nodes + (n < NAMESPACES % nodes) for n in range(nodes)]
    names: list[str] = []
    for n in count():
        name = f"bench{n}"
        slot = key_slot(f"{{{name}}}:".encode())
        node = next(place for place, (low, high) in enumerate(_parts(nodes)) if low <= slot < high)
        if wanted[node]:
            wanted[node] -= 1
            names.append(name)
        if not any(wanted):
            return names
    return names


def _drain(servers: list[Server], jobs: int) -> list[str]:
    from benchmarks.peers.milepost import application
    from milepost import Settings

    url = f"redis+cluster://127.0.0.1:{servers[0].port}"
    done: dict[str, list[tuple[int, int]]] = {}
    with ExitStack() as stack:
        applications, readers, workers = [], [], []
        for name in _names(len(servers)):
            queue, noop = application(url, Settings(namespace=name))
            stack.callback(queue.close)
            queue.submit(noop)  # what is measured begins when all workers have started
            ticks = stack.enter_context(fifo())
            worker = stack.enter_context(worker_process("milepost", url, ticks, DRAIN_EVERY, MILEPOST_NAMESPACE=name))
            ticks.read(worker)
            queue.set_limit("noop", paused=True)
            for _ in range(0, jobs, DRAIN_EVERY):
                queue.submit_many(noop, [{}] * DRAIN_EVERY)
            done[name] = []
            applications.append(queue)
            workers.append(worker)
            readers.append(threading.Thread(target=_read, args=(ticks, worker, jobs, done[name])))
        redis, spent = [cpu_seconds(server.pid) for server in servers], sum(worker.cpu() for worker in workers)
        begin = time.monotonic_ns()
        for queue, reader in zip(applications, readers, strict=True):
            queue.set_limit("noop")
            reader.start()
        for reader in readers:
            reader.join()
        redis = [cpu_seconds(server.pid) - before for server, before in zip(servers, redis, strict=True)]
        spent = sum(worker.cpu() for worker in workers) - spent
    if any(not seen or seen[-1][0] < jobs for seen in done.values()):
        raise PeerFailedError("a worker of the Cluster gave no sign")
    total = jobs * len(done)
    end = max(seen[-1][1] for seen in done.values())
    first_end = min(seen[-1][1] for seen in done.values())
    shares = [max((n for n, at in seen if at <= first_end), default=0) for seen in done.values()]
    return [
        figure(total / ((end - begin) / 1e9)),
        figure(spent / total * 1e6),
        figure(sum(redis) / total * 1e6),
        f"{max(redis) / (sum(redis) or 1):.0%}",
        f"{sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares)):.2f}",
    ]


def _read(ticks: Ticks, worker: WorkerProcess, jobs: int, into: list[tuple[int, int]]) -> None:
    try:
        while not into or into[-1][0] < jobs:
            into.append(ticks.read(worker))
    except PeerFailedError:
        return  # the missing ticks tell
