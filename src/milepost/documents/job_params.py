"""Restrictions on the parameters of document jobs that were submitted over HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, TypeVar

from milepost.core.errors import InvalidInputError
from milepost.documents.chunking import MAX_CHUNK_TOKENS, MIN_CHUNK_TOKENS
from milepost.documents.configuration import Configuration
from milepost.documents.document_root import DocumentRoot
from milepost.run.param_types import OperatorOnly
from milepost.run.run import Run

Number = TypeVar("Number", int, float)
MAX_PATHS: Final = 1000
Database = Annotated[str | None, OperatorOnly("MILEPOST_DOCUMENTS, or document_jobs(database=...)")]
Model = Annotated[str | None, OperatorOnly("MILEPOST_DOCUMENTS_MODEL, or document_jobs(model=...)")]
ModelPath = Annotated[str | None, OperatorOnly("MILEPOST_DOCUMENTS_MODEL_PATH, or document_jobs(model_path=...)")]
EmbeddingUrl = Annotated[str | None, OperatorOnly("MILEPOST_EMBEDDING_URL, or document_jobs(embedding_url=...)")]
LlmUrl = Annotated[str | None, OperatorOnly("MILEPOST_LLM_URL, or document_jobs(llm_url=...)")]
LlmModel = Annotated[str | None, OperatorOnly("MILEPOST_LLM_MODEL, or document_jobs(llm_model=...)")]
EntityRulesFile = Annotated[str | None, OperatorOnly("MILEPOST_ENTITY_RULES, or document_jobs(entity_rules=...)")]
"""Parameters that an HTTP request may not set."""


@dataclass(frozen=True)
class Between:
    """The least and the greatest value of a number, for `Annotated`."""

    ge: int
    le: int


ChunkTokens = Annotated[int, Between(MIN_CHUNK_TOKENS, MAX_CHUNK_TOKENS)]


def owner_of(run: Run, configuration: Configuration) -> str:
    """Return the owner of a job's documents, or an empty text for none.

    Raises InvalidInputError for a submitted job with an empty owner label, which would read the documents of all.
    """
    label = configuration.owner_label
    owner = None if label is None else run.labels.get(label)
    if owner == "" and run.origin == "api":
        raise InvalidInputError(f"labels.{label}", "is empty; submit the job with the name of an owner")
    return owner or ""


def document_root_of(run: Run, paths: list[str], configuration: Configuration, owner: str = "") -> DocumentRoot | None:
    """Return the root to which the paths of a job are confined, or None for a job that may read all files.

    A submitted job whose documents have an owner reads the owner's folder only.

    Raises InvalidInputError for submitted paths if the operator has set no root.
    """
    if run.origin != "api":
        return None
    if configuration.root is None:
        raise InvalidInputError(
            "paths", "this worker does not read submitted paths; its operator must set MILEPOST_DOCUMENTS_ROOT"
        )
    if len(paths) > MAX_PATHS:
        raise InvalidInputError(
            "paths", f"{len(paths):,} paths exceed the limit of {MAX_PATHS:,}; use folders or globs"
        )
    return DocumentRoot(configuration.root, owner)


def limits_of(
    run: Run, max_bytes: int | None, seconds_per_file: float | None, configuration: Configuration
) -> tuple[int, float]:
    """Return the maximum bytes and seconds per file. Raises InvalidInputError if a submitted job would raise a limit."""
    most, longest = configuration.max_bytes, configuration.seconds_per_file
    return (
        _limit(run, "max_bytes", max_bytes, most, "MILEPOST_DOCUMENTS_MAX_BYTES"),
        _limit(run, "seconds_per_file", seconds_per_file, longest, "MILEPOST_DOCUMENTS_SECONDS_PER_FILE"),
    )


def _limit(run: Run, name: str, asked: Number | None, most: Number, variable: str) -> Number:
    if asked is None:
        return most
    if not asked > 0:
        raise InvalidInputError(name, f"must be above 0, not {asked:g}")
    if run.origin == "api" and asked > most:
        raise InvalidInputError(name, f"{asked:,} exceeds the operator's limit of {most:,} ({variable})")
    return asked
