/** The whole page: which view is shown, and the title of the browser tab. */
import type { ComponentType } from "preact";
import { effect, signal } from "@preact/signals";
import { job } from "./job/record";
import { JobPage, JobsPage } from "./pages/jobs";
import { Confirm } from "./parts/confirm";
import { rowOf } from "./wire/row";
import { link } from "./live/feed";
import { go, page, pageAt, place, type PageName } from "./shell/address";
import { Help } from "./shell/help";
import { Palette } from "./shell/palette";
import { session } from "./shell/session";
import { SignIn } from "./shell/signin";
import { Toasts } from "./shell/toasts";
import { Top } from "./shell/top";
import { progressText } from "./text/progress";
import { signInNeeded } from "./wire/api";

/** Pages that are loaded when they are first opened. */
const LATER: Partial<Record<PageName, () => Promise<ComponentType>>> = {
  failures: async () => (await import("./pages/failures")).FailuresPage,
  overview: async () => (await import("./pages/overview")).OverviewPage,
  types: async () => (await import("./pages/types")).TypesPage,
  documents: async () => (await import("./pages/documents")).DocumentsPage,
  schedules: async () => (await import("./pages/schedules")).SchedulesPage,
  usage: async () => (await import("./pages/usage")).UsagePage,
  workers: async () => (await import("./pages/workers")).WorkersPage,
};

const PRELOAD_AFTER = 8000;

const loaded = signal<Partial<Record<PageName, ComponentType>>>({ jobs: JobsPage, job: JobPage });

function Broken() {
  const offline = link.value.kind === "retrying";
  return (
    <main class="main">
      <div class="empty">
        <p>{offline ? "This page can't be loaded while the server is unreachable." : "This page could not be loaded."}</p>
        {offline ? (
          <button type="button" class="button" onClick={() => go(pageAt("jobs"))}>
            Back to jobs
          </button>
        ) : (
          // A newer release, with other file names, may have been installed meanwhile.
          <button type="button" class="button" onClick={() => location.reload()}>
            Reload
          </button>
        )}
      </div>
    </main>
  );
}

async function load(name: PageName): Promise<void> {
  if (loaded.peek()[name] !== undefined && loaded.peek()[name] !== Broken) return;
  try {
    const found = await LATER[name]?.();
    if (found !== undefined) loaded.value = { ...loaded.peek(), [name]: found };
  } catch {
    if (page.peek() === name) loaded.value = { ...loaded.peek(), [name]: Broken };
  }
}

effect(() => void load(page.value));
effect(() => {
  if (link.value.kind === "live") void load(page.peek());
});
// The other pages are loaded in advance, so that they open while the server is unavailable.
setTimeout(() => {
  if (link.peek().kind === "live") for (const name of Object.keys(LATER) as PageName[]) void load(name);
}, PRELOAD_AFTER);

effect(() => {
  const open = place.value.job === null ? null : job.value;
  const name = page.value[0]?.toUpperCase() + page.value.slice(1);
  if (open !== null) {
    document.title = `${open.status === "running" ? progressText(rowOf(open)) || "running" : open.status} - ${open.job_type}`;
  } else document.title = page.value === "jobs" ? "milepost" : `${name} - milepost`;
});

export function App() {
  if (signInNeeded.value) return <SignIn />;
  const Page = loaded.value[page.value];
  const shared = session.value?.id === "share";
  return (
    <div class="shell">
      {!shared && <Top />}
      {Page === undefined ? <main class="main empty muted" aria-busy="true">Loading…</main> : <Page />}
      <Help />
      <Palette />
      <Confirm />
      <Toasts />
    </div>
  );
}
