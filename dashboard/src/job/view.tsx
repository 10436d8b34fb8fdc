/** One job: the same in the pane beside the list and on a page of its own. */
import { useEffect } from "preact/hooks";
import { canCancel, canRetry, cancel, remove, retry, retryFailed } from "../jobs/actions";
import { messageOf, shortId } from "../jobs/row";
import { hidden } from "../jobs/list";
import { now } from "../live/clock";
import { copy } from "../parts/holder";
import { JsonView } from "../parts/json";
import { lookOf } from "../parts/icons";
import { Bar, Chip } from "../parts/progress";
import { go, place } from "../shell/address";
import { mayCancel, mayDelete, mayWrite, onlyJob, session } from "../shell/session";
import { asCli, asCurl } from "../text/commands";
import { leftRange, percent, startsIn, timeLeft } from "../text/time";
import { rowOf } from "../wire/row";
import type { Eta, JobRecord } from "../wire/types";
import { ErrorPart } from "./error";
import { AttemptsPart, Events, ReceiptView } from "./events";
import { Messages } from "./messages";
import { share } from "./sharing";
import { Timeline } from "./timeline";
import { job, problem, readAgain, wantsEvents } from "./watched";

export const PARTS = ["messages", "result", "error", "params", "events", "attempts"] as const;
export type Part = (typeof PARTS)[number];
const NAMES: Record<Part, string> = {
  messages: "Messages",
  result: "Result",
  error: "Error",
  params: "Params",
  events: "Events",
  attempts: "Attempts",
};

function firstPart(shown: JobRecord): Part {
  if (shown.status === "failed") return "error";
  if (shown.status === "completed" && shown.result !== null) return "result";
  return shown.status === "pending" ? "params" : "messages";
}

export function openPart(shown: JobRecord): Part {
  const asked = place.value.part as Part | null;
  return asked !== null && PARTS.includes(asked) ? asked : firstPart(shown);
}

export function JobView() {
  const shown = job.value;
  const part = shown === null ? null : openPart(shown);
  useEffect(() => {
    wantsEvents.value = part === "messages" || part === "events";
  }, [part, shown?.job_id]);
  if (problem.value !== null && shown === null) {
    const gone = problem.value.status === 404;
    return (
      <div class="empty">
        <h1>{gone ? "Deleted or expired" : "The job cannot be read"}</h1>
        <p class="muted">
          {gone ? `There is no job ${place.value.job ?? ""}: it was deleted, or its time had come.` : problem.value.detail}
        </p>
        {gone ? (
          onlyJob.value === null && (
            <button type="button" class="button" onClick={() => go({ page: "jobs", job: null, part: null })}>
              To the list
            </button>
          )
        ) : (
          <button type="button" class="button" onClick={() => void readAgain()}>
            Try now
          </button>
        )}
      </div>
    );
  }
  if (shown === null || part === null) return <Skeleton />;
  if (hidden.value.has(shown.job_id)) return <p class="empty muted">Deleted.</p>;
  return (
    <div class={`job of-${lookOf(shown)}`}>
      <Head shown={shown} />
      <Far shown={shown} />
      <Actions shown={shown} />
      {shown.receipt !== null && part !== "events" && <ReceiptView job={shown} />}
      <Timeline job={shown} />
      <div class="parts" role="tablist" aria-label="Parts of the job" onKeyDown={turnParts}>
        {PARTS.map((name) => (
          <button
            key={name}
            type="button"
            role="tab"
            id={`tab-${name}`}
            aria-controls="part"
            aria-selected={name === part}
            tabIndex={name === part ? 0 : -1}
            onClick={() => go({ part: name }, { replace: true })}
          >
            {NAMES[name]}
          </button>
        ))}
      </div>
      <div role="tabpanel" id="part" aria-labelledby={`tab-${part}`}>
        <PartView shown={shown} part={part} />
      </div>
    </div>
  );
}

function turnParts(event: KeyboardEvent): void {
  const by = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
  const shown = job.peek();
  if (by === 0 || shown === null) return;
  const at = PARTS.indexOf(openPart(shown));
  const next = PARTS[(at + by + PARTS.length) % PARTS.length] as Part;
  go({ part: next }, { replace: true });
  document.getElementById(`tab-${next}`)?.focus();
  event.preventDefault();
}

function Head({ shown }: { shown: JobRecord }) {
  const row = rowOf(shown);
  return (
    <header>
      <div class="head-line">
        <h1 id="job-title" tabIndex={-1}>
          {shown.job_type}
        </h1>
        <Chip job={row} />
      </div>
      <p class="facts">
        <button type="button" class="button plain mono" title="Copy the id" onClick={() => void copy(shown.job_id, "Id copied")}>
          {shortId(shown.job_id)}
        </button>
        {row.title !== null && <span>{row.title}</span>}
        {shown.attempt > 0 && (
          <span>
            attempt {shown.attempt} of {shown.max_attempts}
          </span>
        )}
        {Object.entries(shown.labels).map(([name, value]) => (
          <span key={name}>
            {name}: {value}
          </span>
        ))}
      </p>
    </header>
  );
}

function Far({ shown }: { shown: JobRecord }) {
  const row = rowOf(shown);
  const at = now.value;
  const eta = shown.eta as Eta | null;
  const left = shown.status === "running" && !shown.stalled ? timeLeft(eta, at) : null;
  const range = left === null ? null : leftRange(eta, at);
  const start = shown.status === "pending" ? startsIn(shown.expected_start as Eta | null, at) : null;
  const message = messageOf(row, at);
  return (
    <div class="far">
      <div class="line">
        <span class="big">{percent(shown.progress)}%</span>
        <span class="muted">
          {start !== null && `starts ${start}`}
          {left === null ? (shown.status === "running" ? "time left unknown" : "") : left === "a moment" ? left : `about ${left} left`}
          {range === null ? "" : ` (${range})`}
        </span>
      </div>
      <Bar job={row} thick label="Progress" />
      <p class={`says${shown.status === "failed" ? " bad" : ""}`}>{message}</p>
    </div>
  );
}

function Actions({ shown }: { shown: JobRecord }) {
  const id = shown.job_id;
  const failedItems = Number(shown.item_counts?.["failed"] ?? 0);
  const again = async (): Promise<void> => {
    const made = await retryFailed(id);
    if (made !== null) go({ job: made, part: null });
  };
  return (
    <div class="actions">
      {mayCancel.value && canCancel(shown) && (
        <button type="button" class="button danger" onClick={() => void cancel(id)}>
          Cancel job
        </button>
      )}
      {mayWrite.value && canRetry(shown) && (
        <button type="button" class="button" onClick={() => void retry(id)}>
          Retry
        </button>
      )}
      {mayWrite.value && failedItems > 0 && shown.status !== "running" && (
        <button type="button" class="button" onClick={() => void again()}>
          Retry the {failedItems.toLocaleString("en-US")} failed items
        </button>
      )}
      {mayDelete.value && !canCancel(shown) && (
        <button type="button" class="button danger" onClick={() => remove(id)}>
          Delete
        </button>
      )}
      <button type="button" class="button" onClick={() => void copy(location.href, "Link copied")}>
        Copy link
      </button>
      <details class="menu-of" onClick={closeAfter}>
        <summary class="button">Copy as…</summary>
        <div>
          <button type="button" class="button plain" onClick={() => void copy(asCli(shown), "Command copied")}>
            CLI
          </button>
          <button type="button" class="button plain" onClick={() => void copy(asCurl(shown), "Command copied")}>
            curl
          </button>
          <button type="button" class="button plain" onClick={() => void copy(JSON.stringify(shown, null, 2), "JSON copied")}>
            JSON
          </button>
        </div>
      </details>
      {mayWrite.value && session.value?.auth === "keys" && (
        <button type="button" class="button" onClick={() => void share(id)}>
          Share
        </button>
      )}
    </div>
  );
}

function closeAfter(event: MouseEvent): void {
  if (event.target instanceof HTMLButtonElement) (event.currentTarget as HTMLDetailsElement).open = false;
}

function PartView({ shown, part }: { shown: JobRecord; part: Part }) {
  switch (part) {
    case "messages":
      return <Messages />;
    case "result":
      if (shown.status !== "completed") return <p class="muted">There is a result when the job has completed.</p>;
      return <JsonView value={shown.result} label="Result" />;
    case "error":
      return <ErrorPart job={shown} />;
    case "params":
      return (
        <div class="job">
          <section class="section">
            <h2>Params</h2>
            <JsonView value={shown.params ?? {}} label="Params" />
          </section>
          <section class="section">
            <h2>Metadata</h2>
            <JsonView value={shown.metadata ?? {}} label="Metadata" />
          </section>
        </div>
      );
    case "events":
      return <Events job={shown} />;
    case "attempts":
      return <AttemptsPart job={shown} />;
  }
}

function Skeleton() {
  return (
    <div class="job" aria-busy="true" aria-label="Loading">
      <div class="skeleton" />
      <div class="skeleton" />
    </div>
  );
}
