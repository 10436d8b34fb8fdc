"""Import a folder with one child job for each file, and a summary when all have ended.

Start workers, as many as you like, and kill them as you like:

    cd examples
    export MILEPOST_URL=sqlite:///jobs.db
    milepost worker import_folder:jobs
    milepost submit import folder=texts

`milepost tree ID` prints the job with its files.
"""

from __future__ import annotations

from pathlib import Path

from milepost import Jobs, Run

jobs = Jobs()


@jobs.job("import.file", max_attempts=3)
def import_file(run: Run, path: str) -> dict[str, int]:
    """Count the words of one file."""
    words = lines = 0
    with Path(path).open(encoding="utf-8") as text:
        for line in text:
            run.check()
            words, lines = words + len(line.split()), lines + 1
    return {"words": words, "lines": lines}


@jobs.job("import", max_attempts=3)
def import_folder(run: Run, folder: str) -> dict[str, int]:
    """Import the text files of a folder. It holds no worker while it waits for them."""
    for path in sorted(Path(folder).glob("*.txt")):
        run.submit_child(path.name, import_file, path=str(path))
    children = run.join()
    return {"files": len(children), "words": sum(child.result["words"] for child in children)}
