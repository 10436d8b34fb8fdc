"""The operator's configuration of the document jobs: folders, databases and servers.

It comes from the environment or from `milepost.documents.jobs.document_jobs`, never from an HTTP request.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from milepost.core.errors import InvalidInputError
from milepost.core.serialization import seconds
from milepost.documents.file_types import MAX_BYTES

D = TypeVar("D")
SECONDS_PER_FILE: Final = 600.0
CONCURRENCY: Final = 4
"""Requests to a server at a time."""
_MAX_CONCURRENCY: Final = 64
RESPONSE_FORMATS: Final = ("json_object", "json_schema")


@dataclass(frozen=True, slots=True)
class Configuration:
    """The operator's settings. A key is sent only to its own URL. Raises InvalidInputError with the field out of range."""

    root: str | None = None
    database: str | None = field(default=None, repr=False)
    model: str | None = None
    model_path: str | None = None
    embedding_url: str | None = field(default=None, repr=False)
    embedding_key: str | None = field(default=None, repr=False)
    llm_url: str | None = field(default=None, repr=False)
    llm_model: str | None = None
    llm_key: str | None = field(default=None, repr=False)
    rerank_url: str | None = field(default=None, repr=False)
    rerank_key: str | None = field(default=None, repr=False)
    rerank_model: str | None = None
    entity_rules: str | None = None
    llm_response_format: str | None = None
    llm_max_tokens: int | None = None
    llm_concurrency: int = CONCURRENCY
    embedding_concurrency: int = CONCURRENCY
    max_bytes: int = MAX_BYTES
    seconds_per_file: float = SECONDS_PER_FILE
    approximate_from: int | None = None
    owner_label: str | None = None

    def __post_init__(self) -> None:
        if self.llm_response_format not in (None, *RESPONSE_FORMATS):
            raise InvalidInputError(
                "llm_response_format",
                f"must be {' or '.join(RESPONSE_FORMATS)}, not {self.llm_response_format!r:.40}",
            )
        if self.llm_max_tokens is not None and self.llm_max_tokens < 1:
            raise InvalidInputError("llm_max_tokens", f"must be at least 1, not {self.llm_max_tokens}")
        for name in ("llm_concurrency", "embedding_concurrency"):
            if not 1 <= (concurrency := getattr(self, name)) <= _MAX_CONCURRENCY:
                raise InvalidInputError(name, f"must be from 1 to {_MAX_CONCURRENCY}, not {concurrency}")

    def embedding(self, endpoint: str | None = None) -> tuple[str | None, str | None]:
        """Return the URL of the embedding server, and its key if the URL is the configured one."""
        return _endpoint(endpoint, self.embedding_url, self.embedding_key)

    def llm(self, endpoint: str | None = None) -> tuple[str | None, str | None]:
        """Return the URL of the chat server, and its key if the URL is the configured one."""
        return _endpoint(endpoint, self.llm_url, self.llm_key)


def from_environment(environment: Mapping[str, str] | None = None) -> Configuration:
    """Return the configuration from environment variables. Raises InvalidInputError for an invalid one."""
    environment = os.environ if environment is None else environment

    def text(name: str) -> str | None:
        return environment.get(name, "").strip() or None

    def number(name: str, default: D) -> int | D:
        value = text(name)
        if value is not None and not value.isdecimal():
            raise InvalidInputError(name, f"{value!r:.40} is not a number")
        return default if value is None else int(value)

    most, longest = text("MILEPOST_DOCUMENTS_MAX_BYTES"), text("MILEPOST_DOCUMENTS_SECONDS_PER_FILE")
    if most is not None and (not most.isdecimal() or int(most) < 1):
        raise InvalidInputError("MILEPOST_DOCUMENTS_MAX_BYTES", f"{most!r:.40} is not a number of bytes")
    duration = SECONDS_PER_FILE if longest is None else seconds(longest, "MILEPOST_DOCUMENTS_SECONDS_PER_FILE")
    if duration <= 0:
        raise InvalidInputError("MILEPOST_DOCUMENTS_SECONDS_PER_FILE", "must be more than 0 seconds")
    given: dict[str, Any] = {
        "root": text("MILEPOST_DOCUMENTS_ROOT"),
        "database": text("MILEPOST_DOCUMENTS"),
        "model": text("MILEPOST_DOCUMENTS_MODEL"),
        "model_path": text("MILEPOST_DOCUMENTS_MODEL_PATH"),
        "embedding_url": text("MILEPOST_EMBEDDING_URL"),
        "embedding_key": text("MILEPOST_EMBEDDING_KEY"),
        "llm_url": text("MILEPOST_LLM_URL"),
        "llm_model": text("MILEPOST_LLM_MODEL"),
        "llm_key": text("MILEPOST_LLM_KEY"),
        "rerank_url": text("MILEPOST_RERANK_URL"),
        "rerank_key": text("MILEPOST_RERANK_KEY"),
        "rerank_model": text("MILEPOST_RERANK_MODEL"),
        "entity_rules": text("MILEPOST_ENTITY_RULES"),
        "llm_response_format": text("MILEPOST_LLM_RESPONSE_FORMAT"),
        "llm_max_tokens": number("MILEPOST_LLM_MAX_TOKENS", None),
        "llm_concurrency": number("MILEPOST_LLM_CONCURRENCY", CONCURRENCY),
        "embedding_concurrency": number("MILEPOST_EMBEDDING_CONCURRENCY", CONCURRENCY),
        "max_bytes": MAX_BYTES if most is None else int(most),
        "seconds_per_file": duration,
        "approximate_from": number("MILEPOST_DOCUMENTS_APPROXIMATE_FROM", None),
        "owner_label": text("MILEPOST_DOCUMENTS_OWNER_LABEL"),
    }
    try:
        return Configuration(**given)
    except InvalidInputError as error:
        raise InvalidInputError(f"MILEPOST_{error.field.upper()}", error.problem) from None


job_configuration: Final[ContextVar[Configuration | None]] = ContextVar("milepost_documents", default=None)
"""The configuration that `document_jobs` gave to the running job."""


def current() -> Configuration:
    """Return the configuration of the running job, else that of the environment."""
    return job_configuration.get() or from_environment()


def _endpoint(asked: str | None, configured: str | None, key: str | None) -> tuple[str | None, str | None]:
    if asked is None:
        return configured, key if configured is not None else None
    is_configured = configured is not None and asked.rstrip("/") == configured.rstrip("/")
    return asked, key if is_configured else None
