/** The list with its tabs, and beside it, where there is room, the job that is open. */
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { JobView } from "../job/view";
import { BulkDialog } from "../jobs/bulk";
import { ListView } from "../jobs/listview";
import { cursor } from "../jobs/selection";
import { Link } from "../parts/link";
import { place } from "../shell/address";
import { onlyJob } from "../shell/session";
import { Tabs } from "../shell/tabs";

const room = matchMedia("(min-width: 1100px)");
const roomy = signal(room.matches);
room.addEventListener("change", () => (roomy.value = room.matches));

export function JobsPage() {
  const open = place.value.job;
  useEffect(() => {
    if (open !== null && cursor.peek() === null) cursor.value = open;
  }, [open]);
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
