"""The table of scopes in docs/security.md is complete."""

from __future__ import annotations

import re

from milepost.web.security.principals import SCOPES
from tests.docs.page_runner import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")


def test_every_scope_is_explained() -> None:
    """Users who create a key must find what its scopes permit."""
    assert re.findall(r"^\| `(jobs:\w+|admin)` \|", PAGE, re.MULTILINE) == list(SCOPES)
