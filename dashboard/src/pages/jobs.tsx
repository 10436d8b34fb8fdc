/** The list with its tabs, and beside it, where there is room, the job that is open. */
import { JobView } from "../job/view";
import { BulkDialog } from "../jobs/bulk";
import { ListView } from "../jobs/listview";
import { Link } from "../parts/link";
import { place } from "../shell/address";
import { roomy } from "../shell/room";
import { onlyJob } from "../shell/session";
import { Tabs } from "../shell/tabs";

export function JobsPage() {
  const open = place.value.job;
  if (open !== null && !roomy.value) return <JobPage />;
  return (
    <main class="main">
      <h1 class="unseen">Jobs</h1>
      <Tabs />
      <div class={`jobs${open === null ? "" : " with-pane"}`}>
        <ListView />
        {open !== null && (
          <aside class="pane card" aria-label="Open job">
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
        {onlyJob.value === null && (
          <p class="back">
            <Link class="button plain" to={{ page: "jobs", job: null, part: null }}>
              ← Jobs
            </Link>
          </p>
        )}
        <div class="pane card">
          <JobView />
        </div>
      </div>
    </main>
  );
}
