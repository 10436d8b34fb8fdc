/** The list with its tabs and, if the window is wide enough, the open job next to it. */
import { JobView } from "../job/view";
import { BulkDialog } from "../jobs/bulk";
import { ListView, openJob } from "../jobs/listview";
import { link } from "../live/feed";
import { Cross, Expand } from "../parts/icons";
import { Link } from "../parts/link";
import { place } from "../shell/address";
import { isWide } from "../shell/layout";
import { onlyJob } from "../shell/session";
import { LivePill } from "../shell/live";
import { Tabs } from "../shell/tabs";

export function JobsPage() {
  const open = place.value.job;
  if (open !== null && !isWide.value) return <JobPage />;
  return (
    <main class="main">
      <h1 class="unseen">Jobs</h1>
      <Tabs />
      <div class={`jobs${open === null ? "" : " with-pane"}${link.value.kind === "live" || link.value.kind === "connecting" ? "" : " offline"}`}>
        <ListView />
        {open !== null && (
          <aside class="pane card" aria-label="Open job">
            <div class="pane-actions">
              <Link class="icon-button" to={{ page: "job" }} title="Open as a page" aria-label="Open as a page">
                <Expand />
              </Link>
              <button type="button" class="icon-button" title="Close (Esc)" aria-label="Close the job" onClick={() => openJob(null)}>
                <Cross />
              </button>
            </div>
            <JobView />
          </aside>
        )}
      </div>
      <BulkDialog />
    </main>
  );
}

export function JobPage() {
  return (
    <main class="main">
      <div class="sheet">
        {onlyJob.value === null ? (
          <p class="back">
            <Link class="button plain" to={{ page: "jobs", job: null, part: null }}>
              ← Jobs
            </Link>
          </p>
        ) : (
          <p class="back">
            <LivePill />
          </p>
        )}
        <div class={`pane card${link.value.kind === "live" || link.value.kind === "connecting" ? "" : " offline"}`}>
          <JobView />
        </div>
      </div>
    </main>
  );
}
