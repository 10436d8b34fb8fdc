/** Workers: host, process, current jobs and last heartbeat; and the limits on what they run. */
import { now } from "../live/clock";
import { StatusIcon } from "../parts/icons";
import { Mini } from "../parts/jobline";
import { isAdmin } from "../shell/session";
import { ago, localTime, utcTime } from "../text/time";
import type { Row, Workers } from "../wire/types";
import { Limits } from "./limits";
import { usePolled } from "./polled";
import { Waiting } from "./placeholder";

const LOST_AFTER = 15_000;

interface Worker {
  name: string;
  host: string;
  pid: number;
  since_at: string;
  seen_at: string;
  types: string[];
  concurrency: number;
  draining: boolean;
  jobs: Row[];
}

export function WorkersPage() {
  const found = usePolled<Workers>("workers", {}, 2000);
  const workers = (found.value.value?.workers ?? []) as unknown as Worker[];
  return (
    <main class="main">
      <div class="sheet wide">
        <h1>Workers</h1>
        <Waiting of={found} />
        {found.value.value !== null && workers.length === 0 && (
          <p class="muted">
            No workers connected. Start one with <code>milepost worker MODULE:APP</code>.
          </p>
        )}
        <div class="columns">
          {workers.map((worker) => (
            <WorkerCard key={worker.name} worker={worker} />
          ))}
        </div>
        {isAdmin.value && <Limits />}
      </div>
    </main>
  );
}

function WorkerCard({ worker }: { worker: Worker }) {
  const at = now.value;
  const lost = at - Date.parse(worker.seen_at) > LOST_AFTER;
  return (
    <section class="card panel" aria-label={`Worker ${worker.name}`}>
      <header>
        <h2>
          {worker.name}
          {worker.host !== worker.name && <span class="muted"> on {worker.host}</span>}
        </h2>
        {lost ? (
          <span class="chip of-failed">
            <StatusIcon look="failed" /> lost
          </span>
        ) : worker.draining ? (
          <span class="chip of-stalled">
            <StatusIcon look="stalled" /> draining
          </span>
        ) : null}
      </header>
      <p class="muted small">
        PID {worker.pid} · {worker.jobs.length} of {worker.concurrency} slots ·{" "}
        <span title={`${localTime(worker.since_at)} · ${utcTime(worker.since_at)}`}>since {localTime(worker.since_at)}</span> ·{" "}
        <span title={`${localTime(worker.seen_at)} · ${utcTime(worker.seen_at)}`}>last heartbeat {ago(worker.seen_at, at)}</span>
        <br />
        {worker.types.join(", ")}
      </p>
      <div>
        {worker.jobs.map((row) => (
          <Mini key={row.job_id} row={row} />
        ))}
        {worker.jobs.length === 0 && <p class="muted">Idle</p>}
      </div>
    </section>
  );
}
