"""docs/security.md: the tests that it names exist, and its table of scopes is complete."""

from __future__ import annotations

import re

from milepost.web.security.principals import SCOPES
from tests.docs.page_runner import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")


def test_tests_named_on_the_page_exist() -> None:
    """A row that names a renamed or deleted test proves nothing."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) >= 30
    for file, name in named:
        assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE), f"{file}::{name}"
    assert [f"API{row}" for row in range(1, 11)] == re.findall(r"^\| (API\d+) ", PAGE, re.MULTILINE)


def test_every_scope_is_explained() -> None:
    """Users who create a key must find what its scopes permit."""
    assert re.findall(r"^\| `(jobs:\w+|admin)` \|", PAGE, re.MULTILINE) == list(SCOPES)
