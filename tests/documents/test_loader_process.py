"""The loader child: reused for many files, limited, replaced when it dies, and ended with its parent."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from milepost.documents.errors import BadDocumentError
from milepost.documents.loader_process import LoaderProcess, LoadLimits
from tests.documents.sample_files import write_docx, write_pdf
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.timing


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_one_child_reads_many_files(tmp_path: Path, loader: LoaderProcess) -> None:
    first = write_pdf(tmp_path / "a.pdf", ["one", "two"])
    second = write_docx(tmp_path / "b.docx")
    assert "".join(piece.text for piece in loader.load(first)) == "one\n\ntwo\n\n"
    child = loader.pid
    assert "Bengtskar" in "".join(piece.text for piece in loader.load(second))
    assert loader.pid == child


@pytest.mark.parametrize("entry", ["", ".", "{here}"])
def test_child_does_not_import_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    """A milepost.py in the worker's current folder was imported by the child that reads files."""
    for name in ("milepost.py", "json.py"):
        (tmp_path / name).write_text("raise SystemExit('planted')")
    (tmp_path / "a.txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry.format(here=tmp_path), *sys.path])
    with LoaderProcess() as loader:
        assert [piece.text for piece in loader.load(tmp_path / "a.txt")] == ["text"]


def test_a_piece_larger_than_a_frame_arrives_whole(tmp_path: Path, loader: LoaderProcess) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text\n" + "é" * 3_000_000 + "\n")
    assert "".join(piece.text for piece in loader.load(path)) == "text: " + "é" * 3_000_000 + "\n\n"


def test_abandoned_load_can_be_followed_by_another(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", [f"page {number}" for number in range(2000)])
    with LoaderProcess() as loader:
        pieces = loader.load(path)
        assert next(pieces).done == 1
        pieces.close()
        assert loader.pid is None
        assert sum(piece.page is not None for piece in loader.load(path)) == 2000
        assert loader.starts == 2


def test_tick_can_stop_a_hanging_load(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", ["one"])

    class Stop(BaseException):
        pass

    def tick() -> None:
        raise Stop

    with LoaderProcess() as loader:
        list(loader.load(path))
        assert loader.pid is not None
        os.kill(loader.pid, signal.SIGSTOP)
        with pytest.raises(Stop):
            list(loader.load(path, tick=tick))
        assert loader.pid is None


def test_a_hanging_child_is_killed_and_replaced(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", ["one"])
    with LoaderProcess() as loader:
        list(loader.load(path))
        child, patient = loader.pid, loader.limits
        assert child is not None
        loader.limits = LoadLimits(seconds_per_piece=0.3)
        os.kill(child, signal.SIGSTOP)
        with pytest.raises(BadDocumentError) as caught:
            list(loader.load(path))
        assert (caught.value.code, caught.value.message) == ("load_timeout", "a.pdf: no page was read in 0.3 s")
        assert not psutil.pid_exists(child)
        loader.limits = patient
        assert "".join(piece.text for piece in loader.load(path)) == "one\n\n"


def test_total_time_limit_error(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", ["one"])
    with LoaderProcess() as loader:
        list(loader.load(path))
        assert loader.pid is not None
        loader.limits = LoadLimits(seconds=0.3)
        os.kill(loader.pid, signal.SIGSTOP)
        with pytest.raises(BadDocumentError) as caught:
            list(loader.load(path))
    assert caught.value.message == "a.pdf: reading it took longer than 0.3 s"


def test_time_of_the_caller_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pdf(tmp_path / "a.pdf", ["one", "two", "three"])
    later = 0
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + later)
    monkeypatch.setattr("milepost.documents.loader_process.time", clock)
    with LoaderProcess() as loader:
        for _ in loader.load(path):
            later += 1000
    assert later >= 3000


@pytest.mark.parametrize(("number", "code"), [(signal.SIGSEGV, "load_crashed"), (signal.SIGKILL, "out_of_memory")])
def test_dead_child_gives_error_code_and_is_replaced(tmp_path: Path, number: signal.Signals, code: str) -> None:
    path = write_pdf(tmp_path / "a.pdf", [f"page {number}" for number in range(3000)])
    with LoaderProcess() as loader:
        pieces = loader.load(path)
        next(pieces)
        assert loader.pid is not None
        os.kill(loader.pid, number)
        with pytest.raises(BadDocumentError) as caught:
            list(pieces)
        assert caught.value.code == code
        assert next(loader.load(path)).done == 1


def test_memory_is_limited(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + '"' + "x" * 15_000_000 + '",' + '"' + "y" * 15_000_000 + '"\n')
    with LoaderProcess(LoadLimits(memory_bytes=160 * 1024 * 1024)) as loader:
        with pytest.raises(BadDocumentError) as caught:
            list(loader.load(path))
        assert caught.value.code == "out_of_memory"
        small = write_pdf(tmp_path / "a.pdf", ["one"])
        assert "".join(piece.text for piece in loader.load(small)) == "one\n\n"


def test_close_leaves_no_descriptor_or_child(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", ["one"])
    bad = tmp_path / "bad.pdf"
    bad.write_bytes(b"%PDF-")
    gc.collect()
    before, children = open_descriptors(), set(psutil.Process().children())
    for _ in range(3):
        with LoaderProcess() as loader:
            list(loader.load(path))
            with pytest.raises(BadDocumentError):
                list(loader.load(bad))
            next(loader.load(path))
    gc.collect()
    until(lambda: open_descriptors() <= before)  # threads of earlier tests open and close some
    assert set(psutil.Process().children()) <= children


def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", ["one"])
    program = (
        "import sys, time\n"
        "from milepost.documents.loader_process import LoaderProcess\n"
        "loader = LoaderProcess(); list(loader.load(sys.argv[1])); print(loader.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    gone, alive = psutil.wait_procs([child], timeout=PATIENCE)
    assert (len(gone), alive) == (1, [])


def test_daemonic_process_can_load(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", ["one"])
    program = (
        "import multiprocessing, sys\n"
        "from milepost.documents.loader_process import LoaderProcess\n"
        "def load(path):\n"
        "    with LoaderProcess() as loader: print(*(p.text for p in loader.load(path)), flush=True)\n"
        "child = multiprocessing.get_context('fork').Process(target=load, args=(sys.argv[1],), daemon=True)\n"
        "child.start(); child.join()"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout.strip() == "one"
