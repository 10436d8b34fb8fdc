"""Three hundred damaged files of each format through one loader child: no hang, no crash, and an error code for each."""

from __future__ import annotations

import os
import random
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import psutil
import pytest

from milepost.documents.errors import CODES, BadDocumentError
from milepost.documents.loader_process import LoaderProcess, LoadLimits
from tests.documents.sample_files import PARAGRAPHS, write_docx, write_epub, write_odt, write_pdf

MEMORY = 512 * 1024 * 1024
FILES = int(os.environ.get("MILEPOST_DAMAGED_FILES", "300"))


def write_html(path: Path) -> Path:
    rows = "".join(f"<tr><td>{number}</td><td>{PARAGRAPHS[number % 3]}</td></tr>" for number in range(30))
    path.write_text(f"<!doctype html><title>T</title><h1>Towers &amp; more</h1><pre> x </pre><table>{rows}</table>")
    return path


def write_csv(path: Path) -> Path:
    path.write_text("name,height,note\n" + "".join(f'"Tower {n}",{n},"{PARAGRAPHS[n % 3]}"\n' for n in range(50)))
    return path


def write_text(path: Path) -> Path:
    path.write_text("\n\n".join(PARAGRAPHS * 20) + " caf\u00e9 \u2603", encoding="utf-8")
    return path


WHOLE: dict[str, Callable[[Path], Path]] = {
    "pdf": lambda path: write_pdf(path, [f"{text}\nmore" for text in PARAGRAPHS * 3]),
    "docx": write_docx,
    "epub": write_epub,
    "odt": write_odt,
    "html": write_html,
    "csv": write_csv,
    "txt": write_text,
    "md": write_text,
}


def damage(content: bytes, chance: random.Random) -> bytes:
    """Change bytes, and cut, repeat or drop stretches, as broken disks and transfers do."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 5, 20, 100))):
        if not data:
            break
        at = chance.randrange(len(data))
        length = min(chance.choice((1, 1, 4, 64, 1024)), len(data) - at)
        match chance.randrange(7):
            case 0:
                data[at : at + length] = chance.randbytes(length)
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = data[at : at + length] * chance.choice((1, 2, 50))
            case 3:
                data[at] ^= 1 << chance.randrange(8)
            case 4:
                del data[max(at, 1) :]
            case 5:
                data[at:at] = chance.choice(
                    (b"\x00", b"<", b"&#x110000;", b"\xff\xfe", b"(" * 50, b"99999999999", b"]]>")
                )
            case 6:
                data[at : at + length] = bytes(length)
    return bytes(data)


def damage_inside(content: bytes, chance: random.Random) -> bytes:
    """Damage the content of an archive, but not the archive itself."""
    out = BytesIO()
    with zipfile.ZipFile(BytesIO(content)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        names = old.namelist()
        hit = set(chance.sample(names, min(len(names), chance.choice((1, 1, 2)))))
        for name in names:
            if name in hit and chance.random() < 0.1:
                continue
            new.writestr(name, damage(old.read(name), chance) if name in hit else old.read(name))
    return out.getvalue()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("suffix", WHOLE)
def test_damaged_files_get_an_error_code(tmp_path: Path, suffix: str) -> None:
    chance = random.Random(f"milepost {suffix}")
    content = WHOLE[suffix](tmp_path / f"whole.{suffix}").read_bytes()
    is_archive = content.startswith(b"PK")
    path = tmp_path / f"damaged.{suffix}"
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    with LoaderProcess(LoadLimits(seconds_per_piece=10, seconds=20, memory_bytes=MEMORY)) as loader:
        for number in range(FILES):
            inside = is_archive and number % 2
            path.write_bytes(damage_inside(content, chance) if inside else damage(content, chance))
            before = time.monotonic()
            try:
                outcomes["read"] += bool(list(loader.load(path)))
            except BadDocumentError as bad:
                outcomes[bad.code] += 1
            slowest = max(slowest, time.monotonic() - before)
            if loader.pid is not None:
                assert psutil.Process(loader.pid).memory_info().rss < MEMORY
        starts = loader.starts
    print(f"{suffix}: {dict(outcomes)}, slowest {slowest:.2f} s, {starts} children")
    assert sum(outcomes.values()) == FILES
    assert set(outcomes) <= {"read", *CODES}
    assert outcomes["load_timeout"] == outcomes["unreadable"] == 0
    assert outcomes["load_failed"] <= FILES // 20
    assert starts <= 1 + outcomes["load_crashed"] + outcomes["out_of_memory"]
