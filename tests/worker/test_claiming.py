"""How many jobs a worker asks for: few while it is idle, more where jobs wait."""

from __future__ import annotations

from milepost import InMemoryJobManager, Job
from milepost.stores.protocol import Claim
from milepost.worker.claiming import CLAIM_FIRST, CLAIM_GROWTH, CLAIM_MOST, Claims


def claims() -> Claims:
    return Claims("w", {"a": None}, 30_000_000, None)


def made(asking: Claims, wanted: int) -> Claim:
    claim = asking.make(wanted)
    assert claim is not None
    return claim


def jobs(count: int) -> list[Job]:
    job = InMemoryJobManager().create_job()
    return [Job.stored(job.job_id, {**job.record, "token": "1:a", "worker": "w"})] * count


def test_a_claim_grows_with_what_the_last_one_found() -> None:
    asking, asked = claims(), []
    for _ in range(6):
        claim = made(asking, 10_000)
        asked.append(len(claim.starts))
        assert len(asking.answered(claim, jobs(len(claim.starts)))) == len(claim.starts)
    assert asked[0] == CLAIM_FIRST
    assert asked[1] == CLAIM_FIRST * CLAIM_GROWTH
    assert asked[-1] == CLAIM_MOST
    asking.answered(made(asking, 10_000), jobs(1))
    assert len(made(asking, 10_000).starts) == CLAIM_FIRST


def test_no_more_is_asked_for_than_there_are_slots() -> None:
    asking = claims()
    assert asking.make(0) is None
    assert len(made(asking, 2).starts) == 2


def test_a_claim_without_an_answer_is_sent_again_as_it_was() -> None:
    asking = claims()
    claim = made(asking, 4)
    asking.unanswered(claim, 0.0)
    asking.unanswered(claim, 1e12)  # the first of several counts
    assert made(asking, 200).op != claim.op, "it is long ago"
    claim = made(asking, 3)
    asking.unanswered(claim, float("inf"))
    assert made(asking, 200) is claim


def test_starts_that_were_not_needed_are_used_again() -> None:
    asking = claims()
    claim = made(asking, 4)
    asking.answered(claim, jobs(1))
    assert made(asking, 3).starts == claim.starts[1:]
