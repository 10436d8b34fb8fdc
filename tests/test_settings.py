"""Settings from environment variables, and errors for invalid values."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest

from milepost.core.errors import InvalidInputError
from milepost.settings import Settings


@pytest.mark.parametrize(
    ("text", "strict"), [("1", True), ("True", True), ("on", True), ("", False), ("0", False), ("No", False)]
)
def test_boolean_setting_values(text: str, strict: bool) -> None:
    assert Settings.from_environment({"MILEPOST_STRICT": text}).strict is strict


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("MILEPOST_STRICT", "ture"),
        ("MILEPOST_STRICT", "2"),
        ("MILEPOST_LEASE", "0"),
        ("MILEPOST_LEASE", "soon"),
        ("MILEPOST_HEARTBEAT", "20"),
        ("MILEPOST_GRACE", "0s"),
        ("MILEPOST_CAPTURE", "stderr"),
        ("JOB_TTL", "-1"),
        ("MILEPOST_MAX_PENDING", "0"),
        ("MILEPOST_MAX_PENDING", "1" * 5000),
    ],
)
def test_invalid_setting_names_its_variable(variable: str, text: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        Settings.from_environment({variable: text})
    assert refused.value.field == variable


def test_memory_without_named_store_is_logged_once() -> None:
    """Regression: jobs of a program without a URL were not in `milepost ls`, and nothing said that they were only in
    memory.
    """
    program = """
import logging
from milepost import InMemoryJobManager, Jobs, get_job_manager
logging.basicConfig(level="INFO", format="%(levelname)s %(name)s %(message)s")
InMemoryJobManager()
Jobs("memory://")
print("named", flush=True)
get_job_manager(), Jobs()
"""
    environment = {name: text for name, text in os.environ.items() if name not in ("MILEPOST_URL", "REDIS_URL")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True, check=True
    )  # fmt: skip
    assert done.stdout == (
        "named\nINFO milepost.manager MILEPOST_URL is not set: jobs are kept in the memory of this process, "
        "where `milepost ls` and other processes do not see them\n"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lease", "soon"),
        ("lease", float("nan")),
        ("grace", True),
        ("sweep", 0),
        ("job_ttl", -1),
        ("job_ttl", float("nan")),
        ("max_pending", 0),
        ("max_pending", "many"),
        ("max_streams", 1.5),
        ("output_bytes", True),
        ("strict", "no"),
    ],
)
def test_invalid_setting_in_code_names_its_field(name: str, value: object) -> None:
    """Regression: only the environment was checked. With a negative retention, results were gone at once."""
    given: dict[str, Any] = {name: value}
    with pytest.raises(InvalidInputError, match=f"^{name}: ") as refused:
        Settings(**given)
    assert refused.value.field == name


def test_lease_and_heartbeat_that_do_not_fit_name_the_one_that_was_given() -> None:
    for given, text in (
        ({"lease": 0.3}, "lease: 0.3 s is too short for a heartbeat of 0.2 s"),
        ({"heartbeat": 20}, "heartbeat: 20.0 s is too long for a lease of 30.0 s"),
        ({"heartbeat": 2, "lease": 3}, "heartbeat: 2.0 s is too long for a lease of 3.0 s"),
    ):
        with pytest.raises(InvalidInputError, match=f"^{text}"):
            Settings(**given)


def test_durations_in_code_may_be_text() -> None:
    """Regression: a worker with such a retention ended with a TypeError."""
    given: dict[str, Any] = {"job_ttl": "7d", "lease": timedelta(minutes=1)}
    assert Settings(**given) == Settings(job_ttl=7 * 86_400, lease=60)
