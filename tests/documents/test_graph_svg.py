"""The drawing of the entity graph: labelled, without overlaps, and deterministic."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from milepost.cli.root_command import run_program
from milepost.documents.graph_svg import HEIGHT, WIDTH, draw_graph
from milepost.documents.jobs import HANDLERS
from milepost.documents.store import DocumentStore, open_store
from tests.documents.watched_run import WatchedRun

SVG = "{http://www.w3.org/2000/svg}"
NAMES = ["Ada Lovelace", "Charles Babbage", "Alan Turing", "Grace Hopper", "Rock & <Sons>", "Edsger Dijkstra"]


@pytest.fixture
def store(folder: Path, tmp_path: Path) -> DocumentStore:
    pairs = [f"{one} wrote to {two} from London." for one in NAMES for two in NAMES if one < two]
    (folder / "a.txt").write_text("\n\n".join(pairs * 2))
    database = str(tmp_path / "documents.db")
    HANDLERS["ingestion"](WatchedRun(), [str(folder)], database=database, model="hashing:64", chunk_tokens=32)
    HANDLERS["extraction"](WatchedRun(), database=database, extractor="rules", embed=False)
    HANDLERS["clustering"](WatchedRun(), database=database)
    return open_store(database)


def test_entity_labels_do_not_overlap(store: DocumentStore) -> None:
    picture = draw_graph(store)
    root = ElementTree.fromstring(picture)
    labels = [text for group in root.findall(f"{SVG}g") for text in group.findall(f"{SVG}text")]
    names = [label.text for label in labels]
    assert "Ada Lovelace" in names
    assert len(names) == len(set(names)) >= 5
    boxes = []
    for label in labels:
        x, y, size = (float(label.get(name, "")) for name in ("x", "y", "font-size"))
        half = len(label.text or "") * size * 0.28
        assert x - half >= 0
        assert x + half <= WIDTH
        assert 0 < y < HEIGHT
        boxes.append((x - half, x + half, y - size * 0.8, y))
    for at, one in enumerate(boxes):
        for two in boxes[:at]:
            assert one[1] <= two[0] or two[1] <= one[0] or one[3] <= two[2] or two[3] <= one[2]
    assert len(root.findall(f".//{SVG}line")) >= 4
    assert draw_graph(store) == picture
    store.close()


def test_error_without_relations_names_the_remedy(tmp_path: Path) -> None:
    store = open_store(tmp_path / "none.db")
    with pytest.raises(ValueError, match="run extraction first"):
        draw_graph(store)
    store.close()


def test_command_writes_the_svg_file(store: DocumentStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "a.svg"
    assert run_program(["draw", str(picture), "--database", str(store)]) == 0
    assert capsys.readouterr().out == f"Wrote the entity graph to {picture}\n"
    assert picture.read_text().startswith("<svg ")
    assert run_program(["draw", str(picture), "--database", str(tmp_path / "none.db")]) == 1
    assert f"milepost run ingestion PATH... database={tmp_path / 'none.db'}" in capsys.readouterr().err
    assert not (tmp_path / "none.db").exists()
    store.close()
