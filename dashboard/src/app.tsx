/** The page as a whole: which page is shown, and what its title says. */
import type { ComponentType } from "preact";
import { effect, signal } from "@preact/signals";
import { job } from "./job/watched";
import { JobPage, JobsPage } from "./pages/jobs";
import { page, place, type PageName } from "./shell/address";
import { Help } from "./shell/help";
import { Palette } from "./shell/palette";
import { session } from "./shell/session";
import { SignIn } from "./shell/signin";
import { Toasts } from "./shell/toasts";
import { Top } from "./shell/top";
import { percent } from "./text/time";
import { signInNeeded } from "./wire/api";

/** Pages that are loaded when they are first looked at. */
const LATER: Partial<Record<PageName, () => Promise<ComponentType>>> = {
  failures: async () => (await import("./pages/failures")).FailuresPage,
  overview: async () => (await import("./pages/overview")).OverviewPage,
  types: async () => (await import("./pages/types")).TypesPage,
  workers: async () => (await import("./pages/workers")).WorkersPage,
};

const loaded = signal<Partial<Record<PageName, ComponentType>>>({ jobs: JobsPage, job: JobPage });

function Broken() {
  return (
    <main class="main">
      <div class="empty">
        <p>This page could not be loaded.</p>
        <button type="button" class="button" onClick={() => location.reload()}>
          Reload
        </button>
      </div>
    </main>
  );
}

effect(() => {
  const name = page.value;
  if (loaded.peek()[name] !== undefined) return;
  LATER[name]?.().then(
    (found) => (loaded.value = { ...loaded.peek(), [name]: found }),
    // A newer release may have been installed meanwhile: its files have other names.
    () => (loaded.value = { ...loaded.peek(), [name]: Broken }),
  );
});

effect(() => {
  const open = place.value.job === null ? null : job.value;
  const name = page.value[0]?.toUpperCase() + page.value.slice(1);
  if (open !== null) {
    const far = open.status === "running" ? `${percent(open.progress)} %` : open.status;
    document.title = `${far} - ${open.job_type}`;
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
      <Toasts />
    </div>
  );
}
