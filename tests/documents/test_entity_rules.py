"""Rules of entities, and how many names and labels of a manual are right with them."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import pytest

from milepost.core.errors import InvalidInputError
from milepost.documents.chunking import chunk_text
from milepost.documents.extract import fold, get_extractor, prose
from milepost.documents.extract.entity_rules import EntityRules
from milepost.documents.loaders import load
from milepost.documents.store.records import ChunkText, Extraction
from tests.documents.corpora import debian_manuals

ENTITIES = Path(__file__).parent / "entities"
RULES = """
ignore = ['Section [0-9.]+']

[[entity]]
name = "Falcot"
label = "ORG"
aliases = ["Falcot Corp"]

[[pattern]]
regex = '[A-Z]+-[0-9]+'
label = "TICKET"
"""
TEXT = "Section 10.3 says that Falcot Corp uses ABC-12. Ian Murdock left Falcot for Indiana."


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    return path


def extracted(text: str, name: str, rules: Path | None = None) -> set[tuple[str, str]]:
    extractor = get_extractor(name, rules=rules)
    (found,) = extractor.extract([ChunkText("c", "d", text)])
    extractor.close()
    assert isinstance(found, Extraction)
    return {(mention.name, mention.label) for mention in found.mentions}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("extractor", ["rules", "spacy"])
def test_rules_win_over_the_model(extractor: str, rules: Path) -> None:
    found = extracted(TEXT, extractor, rules)
    assert {("Falcot", "ORG"), ("ABC-12", "TICKET")} <= found
    assert "Ian Murdock" in {name for name, _ in found}
    assert not {name for name, _ in found} & {"Falcot Corp", "Section 10.3", "Section"} - {"Section"}


def test_other_rules_are_another_extraction(rules: Path) -> None:
    assert get_extractor("rules").configuration == "rules-2"
    assert get_extractor("rules", rules=rules).configuration.startswith("rules-2 ")


def test_code_and_markers_are_no_prose() -> None:
    said = prose("# Disks\n\nRun it:\n\n    # mdadm Ada Lovelace\n\n- Name | Town\n")
    assert said.text == "Disks\n\nRun it:\n\n\n\nName; Town\n"
    assert [said.text[start:stop] for start, stop in said.headings] == ["Disks"]
    assert prose("# mdadm\n    # ls\n\nDone").text == "\n\n\nDone", "the chunk begins in code"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[[entity]]\nname = 'x'", "entity 1 must have the texts aliases, label, name"),
        ("[[pattern]]\nregex = '('\nlabel = 'X'", "is not a regular expression"),
        ("[[names]]\nname = 'x'", "unknown key 'names'; use entity, pattern or ignore"),
        (
            "[[entity]]\nname = 'x'\nlabel = 'X'\naliases = 'GCC'",
            r"aliases of 'x' must be a list of texts, e\.g\. aliases = \[",
        ),
        ("[[entity]]\nname = 'x'\nlabel = 'X'\naliases = [7]", "aliases of 'x' must be a list of texts"),
        ("[[entity]]\nname = 'x'\nlabel = 'X'\naliases = ['']", "aliases of 'x' must be a list of texts"),
        ("ignore = 'foo'", r"ignore must be a list of texts, e\.g\. ignore = \["),
        ("ignore = 7", "ignore must be a list of texts"),
        ("entity = 7", r"entity must be tables that begin with \[\[entity\]\]"),
        pytest.param("#" * (1024 * 1024 + 1), "1,048,577 bytes; 1,048,576 are allowed", id="large"),
        ("ignore = [", "cannot be read as TOML"),
        (None, "cannot be read as TOML: .*No such file"),
    ],
)
def test_invalid_rules_are_refused(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "rules.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidInputError, match=said):
        EntityRules(path)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_names_and_labels_of_a_manual_are_right(tmp_path: Path) -> None:
    """Of 200 names that spaCy found, 15 had the name and the label that were given by hand before these rules.

    The rules are made on another manual. A name that is labelled as no entity is right if it is not found.
    """
    with (ENTITIES / "debian_reference.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    manual = debian_manuals("english", tmp_path) / "debian-reference-en"
    chunks: dict[str, list[ChunkText]] = {}
    for page in {row["page"] for row in rows}:
        path = manual / page
        text = "".join(piece.text for piece in load(path))
        chunks[page] = [
            ChunkText(f"{page} {chunk.ordinal}", "d", chunk.text) for chunk in chunk_text(text, format="html")
        ]
    wanted = [(row, _chunk_of(row, chunks[row["page"]])) for row in rows]
    found = [(row, chunk) for row, chunk in wanted if chunk is not None]
    assert len(found) > 190, "the manual is another edition"
    extractor = get_extractor("spacy", rules=ENTITIES / "technical.toml")
    unique = list({chunk.chunk_id: chunk for _, chunk in found}.values())
    mentions: dict[str, dict[str, set[tuple[str, str]]]] = defaultdict(lambda: defaultdict(set))
    for extraction in extractor.extract(unique):
        assert isinstance(extraction, Extraction)
        for mention in extraction.mentions:
            mentions[extraction.chunk_id][mention.key].add((mention.name, mention.label))
    extractor.close()
    wrong = [
        (row["found"], row["name"], row["label"])
        for row, chunk in found
        if not _is_right(row, mentions[chunk.chunk_id])
    ]
    right = 1 - len(wrong) / len(found)
    no_entities = sum(not row["name"] for row, _ in found)
    kept = sum(not name for _, name, _ in wrong)
    print(f"{right:.2f} right; {kept} of {no_entities} names that are no entities are found", *wrong, sep="\n")
    assert right >= 0.6


def _chunk_of(row: dict[str, str], chunks: list[ChunkText]) -> ChunkText | None:
    """Return the chunk that a labelled name is in, by its surroundings without marks."""
    around = _letters(row["before"][-20:] + row["found"] + row["after"][:10])
    return next((chunk for chunk in chunks if around in _letters(chunk.text)), None) or next(
        (chunk for chunk in chunks if _letters(row["found"] + row["after"][:10]) in _letters(chunk.text)), None
    )


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.replace("\\n", " ")))


def _is_right(row: dict[str, str], mentions: dict[str, set[tuple[str, str]]]) -> bool:
    if not row["name"]:
        return fold(row["old_name"]) not in mentions
    return any(label == row["label"] for _, label in mentions.get(fold(row["name"]), ()))
