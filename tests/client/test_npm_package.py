"""The npm package: its version and size, and thirty jobs on one connection of a Vite page, over a server's restart."""

from __future__ import annotations

import gzip
import json
import signal
import tarfile
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

import milepost
from milepost import JobManager, SQLiteJobManager
from tests.client.npm_package import ROOT, pack
from tests.docs.page_runner import blocks
from tests.node import npm_install, run_node
from tests.services import need
from tests.web.server import Server

MAX_BYTES = 6_000
JOBS = 30
PAGE = {
    "package.json": '{"name": "page", "private": true, "type": "module"}',
    "index.html": '<!doctype html><div id="root"></div><script type="module" src="/main.tsx"></script>',
    "vite.config.ts": 'export default { base: "/page/" };',
    "tsconfig.json": json.dumps(
        {
            "compilerOptions": {
                "strict": True,
                "noEmit": True,
                "target": "ES2023",
                "lib": ["ES2023", "DOM"],
                "module": "ESNext",
                "moduleResolution": "bundler",
                "jsx": "react-jsx",
            },
            "include": ["*.ts", "*.tsx"],
        }
    ),
    "main.tsx": """
import { createRoot } from "react-dom/client";
import { ApiError, closeBatch, followOutput, getJob, openBatch, waitForJob, type Job } from "@milepost/client";
import { useJob } from "@milepost/client/react";
import "@milepost/client/element";

const ids = new URLSearchParams(location.search).get("ids")!.split(",");

function Line({ id }: { id: string }) {
  const { job, isMissing } = useJob(id);
  const text = (job: Job | null): string => (job === null ? "unknown" : `${job.status} ${job.progress}`);
  return <li>{isMissing ? "missing" : text(job)}</li>;
}

createRoot(document.getElementById("root")!).render(<ul>{ids.map((id) => <Line key={id} id={id} />)}</ul>);
const element = document.createElement("milepost-job");
element.setAttribute("src", `/api/jobs/${ids[0]}`);
document.body.append(element);
void waitForJob(ids[0]!).then((record) => (document.title = JSON.stringify(record.result)));
async function showOutput() {
  let text = "";
  for await (const chunk of followOutput("chat")) document.body.dataset["output"] = text = (chunk.starts_over ? "" : text) + chunk.text;
  document.body.dataset["ended"] = text;
}
void showOutput();
void openBatch("import").then(() => closeBatch("import", "")).then(({ status }) => (document.body.dataset["batch"] = status));
void getJob("absent").catch((error: unknown) => {
  if (error instanceof ApiError) document.body.dataset["status"] = `${error.status} ${error.message}`;
});
""",
}


def test_version_is_that_of_python_package() -> None:
    for name in ("package.json", "package-lock.json"):
        assert json.loads((ROOT / "clients/npm" / name).read_text())["version"] == milepost.__version__
    page = json.loads((ROOT / "examples/fullstack/page/package.json").read_text())
    assert page["dependencies"]["@milepost/client"] == milepost.__version__
    assert f"milepost-client-{milepost.__version__}.tgz" in (ROOT / "docs/how-to/npm.md").read_text()


def show(manager: JobManager, ids: list[str], progress: float) -> None:
    for job_id in ids:
        manager.update_job(job_id, progress=progress)


def wait_for_lines(page: Page, text: str, count: int = JOBS) -> None:
    """Wait until that number of lines of the page has a text."""
    has_text = "([text, count]) => [...document.querySelectorAll('li')].filter((one) => one.textContent === text).length === count"
    page.wait_for_function(has_text, arg=[text, count], timeout=60_000)


@pytest.mark.slow
@pytest.mark.service("chromium")
def test_vite_page_shows_jobs_on_one_connection(tmp_path: Path, sqlite_url: str) -> None:
    package = pack(tmp_path / "clone")
    with tarfile.open(package) as packed:
        modules = [packed.extractfile(one) for one in packed.getmembers() if one.name.endswith(".js")]
        sizes = [len(gzip.compress(module.read())) for module in modules if module is not None]
    assert 0 < sum(sizes) <= MAX_BYTES, sizes

    folder = tmp_path / "page"
    folder.mkdir()
    examples = {title: code for _, code, title in blocks((ROOT / "docs/how-to/npm.md").read_text()) if title}
    assert {"progress.tsx", "nightly.ts"} <= set(examples)
    for name, text in {**PAGE, **examples}.items():
        (folder / name).write_text(text)
    versions = json.loads((ROOT / "clients/npm/package.json").read_text())["devDependencies"]
    wanted = [f"{name}@{versions[name]}" for name in ("vite", "react", "typescript", "@types/react")]
    modules_folder = npm_install(
        folder, str(package), *wanted, f"react-dom@{versions['react']}", "@types/react-dom@19.3.0"
    )
    for program in (("typescript/bin/tsc",), ("vite/bin/vite.js", "build")):
        done = run_node(str(modules_folder / program[0]), *program[1:], cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr

    manager = SQLiteJobManager(sqlite_url.removeprefix("sqlite:///"))
    ids = [manager.create_job().job_id for _ in range(JOBS)]
    for job_id in ids:
        manager.update_job(job_id, status="running")
    chat = manager.track("chat", job_id="chat")
    run = chat.__enter__()
    run.output("Paris ")
    server = Server(sqlite_url, app="tests.client.page_app:app", TEST_PAGE=str(folder / "dist"))
    with server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=need("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        streams: list[str] = []
        page.on("request", lambda request: streams.append(request.url) if "/api/events" in request.url else None)
        page.goto(f"{server.url}/page/?ids={','.join([*ids, 'absent'])}")
        show(manager, ids, 0.25)
        wait_for_lines(page, "running 0.25")
        wait_for_lines(page, "missing", 1)
        assert page.locator("milepost-job b").inner_text() == "generic"
        assert page.evaluate("document.body.dataset.status").startswith("404 ")
        page.wait_for_function("document.body.dataset.batch === 'failed'")
        assert len(streams) == 1, streams
        page.wait_for_function("document.body.dataset.output === 'Paris '")
        server.end(signal.SIGKILL)
        run.output("is in ")
        show(manager, ids, 0.5)
        server.start()
        wait_for_lines(page, "running 0.5")
        run.output("France.")
        chat.__exit__(None, None, None)
        page.wait_for_function("document.body.dataset.ended === 'Paris is in France.'", timeout=60_000)
        for job_id in ids:
            manager.update_job(job_id, status="completed", result={"job": job_id})
        wait_for_lines(page, "completed 1")
        page.wait_for_function("(text) => document.title === text", arg=f'{{"job":"{ids[0]}"}}')
        browser.close()
    manager.close()
