"""The four document jobs under one name each, for those who register them.

Importing this loads no model and no parser.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from milepost.documents.clustering import clustering
from milepost.documents.extraction import extraction
from milepost.documents.ingestion import ingestion
from milepost.documents.reindex import reindex

HANDLERS: Final[dict[str, Callable[..., dict[str, Any]]]] = {
    "ingestion": ingestion,
    "extraction": extraction,
    "reindex": reindex,
    "clustering": clustering,
}
"""Job type -> handler, each called as ``handler(run, **parameters)``."""

__all__ = ["HANDLERS", "clustering", "extraction", "ingestion", "reindex"]
