"""Translate the books of many tenants with a language model that allows few calls: in turns, paid once, within a budget.

    python examples/fake_provider.py 8400 &
    export MILEPOST_URL=sqlite:///jobs.db LLM_URL=http://127.0.0.1:8400/v1
    PYTHONPATH=examples milepost worker llm_tenants:jobs &
    python examples/llm_tenants.py acme=40 globex=3

Start and kill as many workers as you like. `milepost limit ls` shows what runs, `milepost usage --by label:tenant` what each
tenant has spent. `milepost answer ID publish true` publishes a book; `milepost ls type:book` has the ID. A book that has spent its
budget asks for more: `milepost answer ID budget-1 '{"usd": 0.05}'`.
"""

import json
import os
import sys
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from milepost import Jobs, Run, Snooze

jobs = Jobs()
USD_PER_TOKEN = 0.00001


def complete(run: Run, prompt: str) -> str:
    """Stream the answer of the model to the readers of the job, count what it costs, and return it."""
    body = {
        "model": os.environ.get("LLM_MODEL", "llama3.2"),
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    url, headers = f"{os.environ['LLM_URL']}/chat/completions", {"Content-Type": "application/json"}
    text, tokens = "", 0
    try:
        with urlopen(Request(url, json.dumps(body).encode(), headers), timeout=120) as answer:
            for line in answer:
                if line.startswith(b"data: {"):
                    chunk = json.loads(line.removeprefix(b"data: "))
                    for choice in chunk["choices"]:
                        token = choice["delta"].get("content") or ""
                        text += token
                        run.output(token)
                    if usage := chunk.get("usage"):
                        tokens = usage["total_tokens"]
    except HTTPError as error:
        if error.code == 429:  # no page starts until then, on any worker
            raise Snooze(float(error.headers.get("Retry-After", "30")), gate="page") from error
        raise
    if not tokens:
        raise ConnectionError("the answer ended early")
    run.add_usage(tokens=tokens, usd=tokens * USD_PER_TOKEN)
    return text.strip()


@jobs.job("page", max_attempts=3)
def translate_page(run: Run, text: str) -> str:
    """Translate one page. Its answers are kept: after a 429 or a kill, no answer that it has is paid for again."""
    draft = run.step("draft", complete, run, f"Translate: {text}")
    return run.step("final", complete, run, f"Polish: {draft}")


@jobs.job("book", max_attempts=3)
def translate_book(run: Run, pages: list[str]) -> str:
    """Translate a book, and return it if a person approves. It holds no worker while it waits for its pages, or for the person."""
    tenant = run.labels["tenant"]
    for number, text in enumerate(pages):
        run.submit_child(f"page {number}", translate_page.options(partition=tenant), text=text)
    children = run.join()
    if not run.ask("publish", f"Publish {len(pages)} pages of {tenant}?", bool, expires="7d", default=False):
        return ""
    return "\n".join(children.result(f"page {number}") for number in range(len(pages)))


if __name__ == "__main__":
    jobs.limit("page", running=4, per_partition=2, rate="600/min")
    for word in sys.argv[1:]:
        tenant, _, number = word.partition("=")
        within = translate_book.options(budget={"usd": 0.05}, on_budget="ask")
        book = within.options(partition=tenant, labels={"tenant": tenant})
        print(jobs.submit(book, pages=[f"page {page} of {tenant}" for page in range(int(number))]).job_id)
