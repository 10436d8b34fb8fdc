"""Summarise documents with a language model, let a person approve the summaries, and publish them.

    LLM_URL=http://127.0.0.1:11434/v1 PYTHONPATH=examples milepost worker llm_review:jobs &
    milepost submit review papers
    milepost answer @last publish '{"approved": true}'

Each summary is a kept step: a worker that is killed, or a deploy, asks the model for none of them again. The approval may
take days and holds no worker. Set MILEPOST_URL for all of them.
"""

import json
import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from milepost import Jobs, Run

jobs = Jobs()


@dataclass
class Approval:
    """What a person answers."""

    approved: bool
    note: str = ""


def summarise(text: str) -> str:
    """Return what the model says; the endpoint is one with OpenAI's chat API, for example a local Ollama."""
    body = {
        "model": os.environ.get("LLM_MODEL", "llama3.2"),
        "messages": [{"role": "user", "content": f"Summarise: {text}"}],
    }
    request = urllib.request.Request(
        f"{os.environ['LLM_URL']}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return str(json.load(answer)["choices"][0]["message"]["content"])


@jobs.job("review", max_attempts=3)
def review(run: Run, folder: str) -> dict[str, object]:
    """Summarise each text of a folder and publish the summaries, if they are approved."""
    summaries = {}
    for path in run.each(sorted(Path(folder).glob("*.txt")), stage="Summaries"):
        summaries[path.name] = run.step(f"summary:{path.name}", summarise, path.read_text())
    ok = run.ask("publish", f"Publish {len(summaries)} summaries?", Approval, expires="7d", default=Approval(False))
    if ok.approved:
        run.step("write", publish, folder, summaries)
    return {"summaries": len(summaries), "published": ok.approved}


def publish(folder: str, summaries: dict[str, str]) -> None:
    """Write the summaries beside the texts."""
    (Path(folder) / "summaries.json").write_text(json.dumps(summaries, indent=1))
