"""The log of administrative actions."""

from __future__ import annotations

import logging

import pytest

from milepost import AsyncJobManager
from milepost.web.security.audit import audit
from milepost.web.security.principals import Principal


async def test_entry_is_one_line_whatever_the_user_is_called(
    memory: AsyncJobManager, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "milepost.audit"):
        await audit(memory.store, Principal("ana\nkey.create by root: x"), "purge", removed=1)
    assert caplog.messages[-1] == "purge by ana key.create by root: x:  {'removed': 1}"
