/** Failed jobs by exception and place, the largest group first. */
import { pendingAction, BulkDialog } from "../jobs/bulk";
import { now } from "../live/clock";
import { Link } from "../parts/link";
import { pageAt } from "../shell/address";
import { mayWrite } from "../shell/session";
import { ago, localTime, utcTime, formatCount } from "../text/time";
import type { Failures } from "../wire/types";
import { usePolled } from "./polled";
import { Waiting } from "./placeholder";

interface Group {
  group: string;
  type: string;
  frame: string | null;
  count: number;
  first_at: string;
  last_at: string;
  message: string | null;
  job_id: string;
  job_types: string[];
  q: string;
}

export function FailuresPage() {
  const found = usePolled<Failures>("failures", {}, 5000);
  const groups = (found.value.value?.groups ?? []) as unknown as Group[];
  return (
    <main class="main">
      <div class="sheet">
        <h1>Failures</h1>
        <Waiting of={found} />
        {found.value.value !== null && groups.length === 0 && <p class="muted">No failures</p>}
        {found.value.value?.complete === false && <p class="muted">Only the newest 20,000 failed jobs are counted.</p>}
        <ul class="groups">
          {groups.map((group) => (
            <Item key={group.group} group={group} />
          ))}
        </ul>
      </div>
      <BulkDialog />
    </main>
  );
}

function Item({ group }: { group: Group }) {
  const at = now.value;
  return (
    <li class="card group of-failed">
      <h2>
        <code>{group.type}</code> {group.frame !== null && <span>at {group.frame}</span>}
      </h2>
      <b class="count">
        {formatCount(group.count)} {group.count === 1 ? "job" : "jobs"}
      </b>
      <p>{group.message}</p>
      <span class="muted small right" title={`${localTime(group.last_at)} · ${utcTime(group.last_at)}`}>
        Last seen {ago(group.last_at, at)}
      </span>
      <span class="muted small">{group.job_types.join(", ")}</span>
      <span class="muted small right" title={`${localTime(group.first_at)} · ${utcTime(group.first_at)}`}>
        First seen {ago(group.first_at, at)}
      </span>
      <div class="actions">
        <Link class="button" to={pageAt("jobs", { q: group.q, tab: "all" })}>
          Show jobs
        </Link>
        <Link class="button" to={pageAt("jobs", { q: group.q, tab: "all", job: group.job_id })}>
          Open latest
        </Link>
        {mayWrite.value && (
          <button type="button" class="button" onClick={() => (pendingAction.value = { action: "retry", many: { q: group.q } })}>
            {group.count === 1 ? "Retry" : `Retry all ${formatCount(group.count)}`}
          </button>
        )}
      </div>
    </li>
  );
}
