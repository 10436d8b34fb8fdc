"""What the environment may say, and what is said of what it may not."""

from __future__ import annotations

import pytest

from milepost.core.errors import InvalidInput
from milepost.settings import Settings


@pytest.mark.parametrize(
    ("text", "strict"), [("1", True), ("True", True), ("on", True), ("", False), ("0", False), ("No", False)]
)
def test_a_switch_is_on_or_off(text: str, strict: bool) -> None:
    assert Settings.from_environment({"MILEPOST_STRICT": text}).strict is strict


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("MILEPOST_STRICT", "ture"),
        ("MILEPOST_STRICT", "2"),
        ("MILEPOST_LEASE", "0"),
        ("MILEPOST_LEASE", "soon"),
        ("MILEPOST_PULSE", "20"),
        ("MILEPOST_GRACE", "0s"),
        ("MILEPOST_CAPTURE", "stderr"),
        ("JOB_TTL", "-1"),
    ],
)
def test_what_cannot_be_read_is_named_by_its_variable(variable: str, text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Settings.from_environment({variable: text})
    assert refused.value.field == variable
