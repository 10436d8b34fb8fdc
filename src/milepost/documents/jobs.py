"""The four document jobs, for applications that register them. Importing this module loads no model or parser."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from milepost.documents.clustering import clustering
from milepost.documents.configuration import Configuration, from_environment, job_configuration
from milepost.documents.extraction import extraction
from milepost.documents.ingestion import ingestion
from milepost.documents.reindex import reindex
from milepost.plugins import owned_by

HANDLERS: Final[dict[str, Callable[..., dict[str, Any]]]] = {
    "ingestion": ingestion,
    "extraction": extraction,
    "reindex": reindex,
    "clustering": clustering,
}
"""Job type -> handler, called as ``handler(run, **parameters)`` and configured by the environment."""


def document_jobs(
    *,
    root: str | Path | None = None,
    database: str | Path | None = None,
    model: str | None = None,
    model_path: str | Path | None = None,
    embedding_url: str | None = None,
    embedding_key: str | None = None,
    llm_url: str | None = None,
    llm_model: str | None = None,
    llm_key: str | None = None,
    entity_rules: str | Path | None = None,
    llm_response_format: str | None = None,
    llm_max_tokens: int | None = None,
    llm_concurrency: int | None = None,
    embedding_concurrency: int | None = None,
    max_bytes: int | None = None,
    seconds_per_file: float | None = None,
    approximate_from: int | None = None,
    owner_label: str | None = None,
) -> dict[str, Callable[..., dict[str, Any]]]:
    """Return the handlers with a configuration of their own, for an application to register.

    Values of None come from the environment, except that a key from the environment is not used with a URL given here.
    """
    given = {
        "root": root,
        "database": database,
        "model": model,
        "model_path": model_path,
        "llm_model": llm_model,
        "entity_rules": entity_rules,
        "owner_label": owner_label,
    }
    values: dict[str, Any] = {name: str(value) for name, value in given.items() if value is not None}
    for kind, url, key in (("embedding", embedding_url, embedding_key), ("llm", llm_url, llm_key)):
        if url is not None:
            values[f"{kind}_url"] = url
        if url is not None or key is not None:
            values[f"{kind}_key"] = key
    limits = {
        "max_bytes": max_bytes,
        "seconds_per_file": seconds_per_file,
        "llm_response_format": llm_response_format,
        "llm_max_tokens": llm_max_tokens,
        "llm_concurrency": llm_concurrency,
        "embedding_concurrency": embedding_concurrency,
        "approximate_from": approximate_from,
    }
    values.update((name, value) for name, value in limits.items() if value is not None)
    configuration = replace(from_environment(), **values)
    return {name: _configured(function, configuration) for name, function in HANDLERS.items()}


def _configured(function: Callable[..., dict[str, Any]], configuration: Configuration) -> Callable[..., dict[str, Any]]:
    @owned_by(lambda: configuration.owner_label if function is ingestion else None)
    @functools.wraps(function)
    def handler(*args: Any, **params: Any) -> dict[str, Any]:
        token = job_configuration.set(configuration)
        try:
            return function(*args, **params)
        finally:
            job_configuration.reset(token)

    return handler


__all__ = ["HANDLERS", "clustering", "document_jobs", "extraction", "ingestion", "reindex"]
