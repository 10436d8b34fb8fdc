"""A job that was interrupted and resumed ends with the result of an undisturbed run, or says what it passed over."""

from __future__ import annotations

import itertools
import os
import random
from pathlib import Path

import pytest

from tests.chaos.calibration import slowness
from tests.truth import published
from tests.truth.runner import HANDLERS, KINDS, Runner

pytestmark = [pytest.mark.timing, pytest.mark.timeout(280)]

PAGE = [
    ("", "n = 3"),
    ("", "for item in run.each(range(n)):\n    pass"),
    (' title="other.py"', "run.checkpoint(1)"),
    ("", "print(n)"),
    ("", "@jobs.job('count')\ndef count(run):\n    return list(run.each('abc'))\njobs.submit(count)"),
]
"""The Python blocks of a page: three have a loop or a checkpoint."""


@pytest.fixture
def seed() -> int:
    """Return the seed of the interruptions; TRUTH_SEED repeats it."""
    seed = int(os.environ.get("TRUTH_SEED", random.randrange(100_000)))
    print(f"TRUTH_SEED={seed}")
    return seed


def runner(store: str, request: pytest.FixtureRequest, folder: Path, seed: int, control: str | None = None) -> Runner:
    """Return the runner on a store of that kind."""
    urls = {"memory": "memory://", "sqlite": "sqlite:///FOLDER/jobs.db"}
    url = urls[store] if store in urls else request.getfixturevalue("redis_url")
    return Runner(url, folder, seed, lease=2 * slowness(), control=control)


def test_corpus_is_large_and_every_handler_says_what_it_means() -> None:
    assert len(HANDLERS) >= 40
    folder = Path(__file__).with_name("handlers")
    assert [name for name in HANDLERS if not (folder / f"{name}.py").read_text().startswith('"""')] == []


def test_published_loops_are_run_or_excused_by_name() -> None:
    places = set(published.published())
    assert set(published.NOT_RUN) <= places
    run = {name.rpartition(":")[0] for name in published.published_handlers()} | set(published.published_programs())
    assert run == places - set(published.NOT_RUN)


def test_collector_finds_loops_of_a_page() -> None:
    page = "".join(f"```python{title}\n{code}\n```\n" for title, code in PAGE)
    found = {one.place: one for one in published.of_page("docs/page.md", page)}
    assert list(found) == ["docs/page.md#1", "docs/page.md#2", "docs/page.md#4"]
    assert found["docs/page.md#1"].code == "n = 3\nfor item in run.each(range(n)):\n    pass\n"
    assert found["docs/page.md#2"].code == "run.checkpoint(1)\n"
    assert found["docs/page.md#4"].handlers == ("count",)
    assert "submit" not in found["docs/page.md#4"].code


@pytest.mark.parametrize(("store", "first"), [("sqlite", 0), ("redis", 1)])
def test_interrupted_handlers_end_like_undisturbed_ones(
    store: str, first: int, request: pytest.FixtureRequest, tmp_path: Path, seed: int
) -> None:
    """Every second handler is interrupted on each store. The slow test below has each of them on each store."""
    handlers = [*HANDLERS, *published.published_handlers()][first::2]
    assert runner(store, request, tmp_path, seed).problems(None, handlers) == []


def test_interrupted_programs_end_like_undisturbed_ones(
    request: pytest.FixtureRequest, tmp_path: Path, seed: int
) -> None:
    assert runner("sqlite", request, tmp_path, seed).problems(None, published.published_programs()) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("store", ["memory", "sqlite", "redis"])
def test_every_interruption_leaves_the_outcome_as_it_is(
    store: str, request: pytest.FixtureRequest, tmp_path: Path, seed: int
) -> None:
    handlers = [*HANDLERS, *published.published_handlers()]
    assert runner(store, request, tmp_path, seed).problems(KINDS, handlers) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_interruption_of_a_program_leaves_its_outcome(
    request: pytest.FixtureRequest, tmp_path: Path, seed: int
) -> None:
    assert runner("sqlite", request, tmp_path, seed).problems(KINDS, published.published_programs()) == []


@pytest.mark.parametrize(
    ("control", "kind", "handler"),
    [
        ("skip always", "SIGKILL", "counter"),
        ("skip always", "SIGTERM", "comprehension"),
        ("restore early", "SIGKILL", "state_prelude"),
        ("snapshot at close", "error", "state_half"),
        ("skip always", "SIGKILL", "docs/how-to/resume.md#0"),
        ("skip always", "SIGTERM", "examples/flask_app.py:count"),
    ],
)
def test_corpus_fails_under_a_wrong_rule(
    control: str, kind: str, handler: str, request: pytest.FixtureRequest, tmp_path: Path, seed: int
) -> None:
    controlled = runner("sqlite", request, tmp_path, seed, control)
    found = itertools.chain.from_iterable(controlled.problem(handler, [kind]) for _ in range(30))
    problem = next(found)  # the first writes of a run may hold no cursor yet
    assert ": result is" in problem, "it did not end, or wrote other files"
    assert "passed over" in problem, "no attempt has continued"
