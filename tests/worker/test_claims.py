"""How many jobs a worker claims: few while it is idle, more while jobs are pending."""

from __future__ import annotations

from milepost import InMemoryJobManager, Job
from milepost.core.errors import OutcomeUnknownError, StoreUnavailableError
from milepost.stores.protocol import Claim
from milepost.worker.store_requests import CLAIM_GROWTH_FACTOR, MAX_CLAIM, MIN_CLAIM, ClaimPolicy


def claims() -> ClaimPolicy:
    return ClaimPolicy("w", {"a": None}, 30_000_000, None)


def made(asking: ClaimPolicy, wanted: int) -> Claim:
    claim = asking.make(wanted)
    assert claim is not None
    return claim


def on_reply(asking: ClaimPolicy, claim: Claim, found: list[Job]) -> list[Job]:
    return [claimed.job for claimed in asking.on_reply(claim, found, 0.0)]


def jobs(count: int) -> list[Job]:
    job = InMemoryJobManager().create_job()
    return [Job.stored(job.job_id, {**job.record, "token": "1:a", "worker": "w"})] * count


def test_claim_grows_with_last_reply() -> None:
    asking, asked = claims(), []
    for _ in range(6):
        claim = made(asking, 10_000)
        asked.append(len(claim.starts))
        assert len(on_reply(asking, claim, jobs(len(claim.starts)))) == len(claim.starts)
    assert asked[0] == MIN_CLAIM
    assert asked[1] == MIN_CLAIM * CLAIM_GROWTH_FACTOR
    assert asked[-1] == MAX_CLAIM
    on_reply(asking, made(asking, 10_000), jobs(1))
    assert len(made(asking, 10_000).starts) == MIN_CLAIM


def test_claim_is_bounded_by_free_slots() -> None:
    asking = claims()
    assert asking.make(0) is None
    assert len(made(asking, 2).starts) == 2


def test_unanswered_claim_is_repeated_unchanged() -> None:
    """A job whose claim had no reply for longer than its lease was charged a crash, or failed, though it never began."""
    asking = claims()
    claim = made(asking, 4)
    asking.failed(claim, 5.0, OutcomeUnknownError("late"))
    assert made(asking, 200) is claim
    asking.failed(claim, 70.0, StoreUnavailableError("away"))
    assert made(asking, 200) is claim
    (found,) = asking.on_reply(claim, jobs(1), 90.0)
    assert found.sent_at == 5.0, "the lease may be as old as the first request"
    assert made(asking, 1).operation_id != claim.operation_id


def test_unsent_claim_is_made_anew() -> None:
    asking = claims()
    claim = made(asking, 4)
    asking.failed(claim, 0.0, StoreUnavailableError("away"))
    assert made(asking, 4).operation_id != claim.operation_id


def test_claims_of_worker_are_numbered() -> None:
    """Regression: a duplicate of an old claim, delivered late by the network, started jobs that no worker ran."""
    asking = claims()
    numbers = []
    for _ in range(3):
        claim = made(asking, 4)
        on_reply(asking, claim, [])
        numbers.append(claim.number)
    assert numbers == sorted(set(numbers))
    assert numbers[0] > 0


def test_unused_starts_are_reused() -> None:
    asking = claims()
    claim = made(asking, 4)
    on_reply(asking, claim, jobs(1))
    assert made(asking, 3).starts == claim.starts[1:]
