"""Settings from environment variables, and errors for invalid values."""

from __future__ import annotations

import os
import subprocess
import sys

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
