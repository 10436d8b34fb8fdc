"""Hot paths take the recorded number of instructions within 10 %, whatever the load of the machine."""

from __future__ import annotations

import json

import pytest
from benchmarks.results import RESULTS, machine
from benchmarks.surveys.instructions import COLUMNS, count

SAME = ("Python", "Redis", "hiredis")
TRIES = 3
"""Counts are repeated, because another process can disturb one, for example by connecting to the port."""


@pytest.mark.slow
@pytest.mark.timeout(900)  # callgrind is fifty times slower, and each count may be repeated
@pytest.mark.service("valgrind")
@pytest.mark.service("redis-server")
@pytest.mark.parametrize(
    "name", ["progress write", "submit", "submit in bulk, a job", "no-op job claimed and completed, 10 per request"]
)
def test_instruction_count_matches_recorded(name: str) -> None:
    kept = json.loads(RESULTS.read_text())["instructions"]
    here = machine()
    if any(here[what] != kept["machine"][what] for what in SAME):
        pytest.skip("they were recorded with other versions of Python, Redis or hiredis")
    recorded = {row[0]: [int(figure.replace(",", "")) for figure in row[1:]] for row in kept["rows"]}
    for _ in range(TRIES):
        counted = count(name, 400)
        far = [
            f"{who}: {now:,}, recorded were {before:,}"
            for who, now, before in zip(COLUMNS[1:], counted, recorded[name], strict=True)
            if abs(now - before) > before / 10
        ]
        if not far:
            return
    pytest.fail("; ".join(far))
