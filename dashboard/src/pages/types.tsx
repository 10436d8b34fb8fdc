/** Job types: their statistics, pause and concurrency limit, and a form to submit a job. */
import { useSignal } from "@preact/signals";
import { Dialog } from "../parts/dialog";
import { Link } from "../parts/link";
import { StatusIcon } from "../parts/icons";
import type { TypeNumbers } from "../job/durations";
import { go, pageAt, place } from "../shell/address";
import { isAdmin, mayWrite } from "../shell/session";
import { attempt } from "../shell/action";
import { showToast } from "../shell/toasts";
import { typeFilter } from "../text/commands";
import { preciseDuration, formatCount } from "../text/time";
import { call } from "../wire/api";
import type { JobType, JobTypes, Stats } from "../wire/types";
import { usePolled } from "./polled";
import { Waiting } from "./placeholder";
import { SubmitForm } from "./submit";

export function TypesPage() {
  const found = usePolled<JobTypes>("job-types", {}, 5000);
  const stats = usePolled<Stats>("stats", { window: "24h", step: "24h" }, 15_000);
  const numbers = new Map(((stats.value.value?.types ?? []) as unknown as TypeNumbers[]).map((one) => [one.job_type, one]));
  const types = found.value.value?.job_types ?? [];
  const chosen = types.find((one) => one.name === place.value.type);
  return (
    <main class="main">
      <div class="sheet">
        <h1>Types</h1>
        <Waiting of={found} />
        {found.value.value !== null && types.length === 0 && (
          <p class="muted">No job types yet. They appear when a worker starts or a job is submitted.</p>
        )}
        <ul class="groups">
          {types.map((one) => (
            <TypeItem
              key={one.name}
              type={one}
              counts={one.counts ?? (stats.value.value === null ? null : (stats.value.value.counts[one.name] ?? {}))}
              numbers={numbers.get(one.name)}
              again={found.again}
            />
          ))}
        </ul>
      </div>
      {chosen !== undefined && chosen.published && (
        <Dialog title={`Submit ${chosen.name}`} close={() => go({ type: null })}>
          <SubmitForm type={chosen} />
        </Dialog>
      )}
    </main>
  );
}

interface Item {
  type: JobType;
  /** By status; null while it is not known. */
  counts: Record<string, number> | null;
  numbers: TypeNumbers | undefined;
  again: () => Promise<void>;
}

function TypeItem({ type, counts, numbers, again }: Item) {
  const done = counts?.["completed"] ?? 0;
  const failed = counts?.["failed"] ?? 0;
  const count = (status: string): string => (counts === null ? "–" : formatCount(counts[status] ?? 0));
  const rate = done + failed === 0 ? "–" : `${Math.floor((done / (done + failed)) * 1000) / 10}%`;
  return (
    <li class="card panel">
      <header>
        <div>
          <h2>
            <Link to={pageAt("jobs", { q: typeFilter(type.name), tab: "all" })}>
              {type.name}
            </Link>
            {type.paused && (
              <span class="chip of-stalled">
                <StatusIcon look="pending" /> paused
              </span>
            )}
          </h2>
          {type.doc !== "" && <p class="muted">{type.doc.split("\n\n")[0]}</p>}
        </div>
        <Limits type={type} again={again} />
      </header>
      <dl class="numbers">
        {[
          ["Pending", count("pending")],
          ["Running", count("running")],
          ["Completed", count("completed")],
          ["Failed", count("failed")],
          ["Success", rate],
          ["Run time p50", preciseDuration(numbers?.duration.p50)],
          ["Run time p95", preciseDuration(numbers?.duration.p95)],
          ["Wait p50", preciseDuration(numbers?.wait.p50)],
          ["Wait p95", preciseDuration(numbers?.wait.p95)],
        ].map(([name, value]) => (
          <div key={name}>
            <dt class="muted small">{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </li>
  );
}

function Limits({ type, again }: { type: JobType; again: () => Promise<void> }) {
  const text = useSignal<string | null>(null);
  const set = async (body: { paused?: boolean; concurrency?: number | null }, done: string): Promise<void> => {
    const path = `job-types/${type.name.split("/").map(encodeURIComponent).join("/")}`;
    if (await attempt(() => call("PATCH", path, { body }), done)) await again();
  };
  const own = type["concurrency"] as number | null | undefined;
  return (
    <div class="actions">
      {isAdmin.value && (
        <label class="small muted limit">
          Concurrency limit{" "}
          <input
            class="field"
            type="number"
            min="1"
            placeholder={own == null ? "no limit" : String(own)}
            value={text.value ?? type.limit ?? ""}
            onInput={(event) => (text.value = event.currentTarget.value)}
            onChange={(event) => {
              const value = event.currentTarget.value;
              text.value = null;
              if (event.currentTarget.validity.badInput) return void showToast("Enter a number", { seconds: 3 }); // its value is ""
              void set({ concurrency: value === "" ? null : Number(value) }, value === "" ? "Concurrency limit removed" : `Concurrency limit set to ${value}`);
            }}
          />
        </label>
      )}
      {isAdmin.value && (
        <button type="button" class="button" onClick={() => void set({ paused: !type.paused }, type.paused ? "Resumed" : "Paused. No new jobs will start")}>
          {type.paused ? "Resume" : "Pause"}
        </button>
      )}
      {mayWrite.value && type.published && (
        <Link class="button" to={{ type: type.name }}>
          Submit job…
        </Link>
      )}
    </div>
  );
}
