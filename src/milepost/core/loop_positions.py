"""What the kept positions of loops in a record say about its next run: which loops continue, and which start anew."""

from __future__ import annotations

import re
from collections.abc import Mapping

from milepost.core.values import LARGE_MARK

_CONTINUES = re.compile(r'"n":[1-9]')
_STARTS_ANEW = re.compile(r'"reached":[1-9]\d*(?:,"of":\d+)?(?!\d|,"(?:of|inner)")')
"""A plain loop, unless it is inside of an item of one that continues. In the JSON of cursors a quote inside of a text is
escaped, so that no text of the user's can match."""


def continues_loops(record: Mapping[str, str]) -> bool:
    """Return whether a loop of the next run continues where it was."""
    kept = (record.get("cursors", ""), record.get("state", ""))
    return any(text[:1] == LARGE_MARK or _CONTINUES.search(text) for text in kept)  # only positions are large


def keeps_progress(record: Mapping[str, str]) -> bool:
    """Return whether the progress of the last run is that of the next one: a loop continues, and none starts anew."""
    return continues_loops(record) and _STARTS_ANEW.search(record.get("cursors", "")) is None
