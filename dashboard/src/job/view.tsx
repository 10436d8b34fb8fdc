/** One job, in the pane next to the list or on a page of its own. */
import { useSignal } from "@preact/signals";
import { Fragment } from "preact";
import { useEffect } from "preact/hooks";
import { confirmCancel, confirmRetry, canCancel, canPause, canRetry, isPaused, remove, retryFailed, setPaused, whyNotRetry } from "../jobs/actions";
import { shortId } from "../jobs/row";
import { hidden } from "../jobs/list";
import { now } from "../live/clock";
import { copy } from "../parts/copyable";
import { JsonView } from "../parts/json";
import { Link } from "../parts/link";
import { shownState } from "../parts/icons";
import { Bar, Chip } from "../parts/progress";
import { attemptText, progressText } from "../text/progress";
import { go, place } from "../shell/address";
import { mayCancel, mayDelete, mayWrite, onlyJob, session } from "../shell/session";
import { asCli, asCurl, asPython, asSubmit } from "../text/commands";
import { plain } from "../text/plain";
import { localTime, remaining, startsIn, unknownLeft, utcTime, formatAmount, formatCount } from "../text/time";
import { rowOf } from "../wire/row";
import { isBatch, type JobRecord } from "../wire/types";
import { AttemptsPart } from "./attempts";
import { Budget } from "./budget";
import { ErrorPart } from "./error";
import { Events, ReceiptView } from "./events";
import { Members } from "./members";
import { Messages } from "./messages";
import { Output } from "./output";
import { Questions } from "./question";
import { share } from "./sharing";
import { Timeline } from "./timeline";
import { job, problem, reload, wantsEvents } from "./record";

export const PARTS = ["messages", "result", "error", "params", "events", "attempts"] as const;
export type Part = (typeof PARTS)[number];
const NAMES: Record<Part, string> = {
  messages: "Log",
  result: "Result",
  error: "Error",
  params: "Parameters",
  events: "Events",
  attempts: "Attempts",
};

function firstPart(shown: JobRecord): Part {
  if (shown.status === "failed") return "error";
  if (shown.status === "completed" && (shown.result !== null || shown.result_error !== null)) return "result";
  return shown.status === "pending" ? "params" : "messages";
}

export function openPart(shown: JobRecord): Part {
  const asked = place.value.part as Part | null;
  return asked !== null && PARTS.includes(asked) ? asked : firstPart(shown);
}

export function JobView() {
  const shown = job.value;
  const part = shown === null ? null : openPart(shown);
  // Its events say what became of each run.
  const rerun = (shown?.attempts.length ?? 0) > 1 || (part === "attempts" && shown?.status === "pending");
  useEffect(() => {
    wantsEvents.value = part === "messages" || part === "events" || rerun;
  }, [part, rerun, shown?.job_id]);
  if (problem.value !== null && shown === null) {
    const gone = problem.value.status === 404;
    return (
      <div class="empty">
        <h1>{gone ? "Job not found" : "Can't load this job"}</h1>
        <p class="muted">
          {gone ? `There is no job ${place.value.job ?? ""}. It may have been deleted or expired.` : problem.value.detail}
        </p>
        {gone ? (
          onlyJob.value === null && (
            <button type="button" class="button" onClick={() => go({ page: "jobs", job: null, part: null })}>
              Back to jobs
            </button>
          )
        ) : (
          <button type="button" class="button" onClick={() => void reload()}>
            Try now
          </button>
        )}
      </div>
    );
  }
  if (shown === null || part === null) return <Skeleton />;
  if (hidden.value.has(shown.job_id)) return <p class="empty muted">Deleted.</p>;
  return (
    <div class={`job of-${shownState(shown)}`}>
      <Head shown={shown} />
      <Far shown={shown} />
      <Budget key={shown.job_id} shown={shown} />
      <Members shown={shown} />
      <Questions shown={shown} />
      <Actions shown={shown} />
      {shown.receipt !== null && part !== "events" && <ReceiptView job={shown} />}
      <Output shown={shown} />
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
        {row.title !== null && <bdi>{plain(row.title)}</bdi>}
        {(shown.attempt ?? 0) > 0 && (
          <span>attempt {attemptText(shown.attempt ?? 0, shown.max_attempts ?? 1)}</span>
        )}
        {Object.entries(shown.usage).map(([name, amount]) => (
          <span key={name} title="Usage">
            {plain(`${name} ${formatAmount(amount)}`)}
          </span>
        ))}
        {Object.entries(shown.labels).map(([name, value]) => (
          <span key={name}>
            {plain(`${name}: ${value}`)}
          </span>
        ))}
      </p>
    </header>
  );
}

function Far({ shown }: { shown: JobRecord }) {
  const row = rowOf(shown);
  const at = now.value;
  const rest = remaining(row, at);
  const start = shown.status === "pending" ? startsIn(shown.expected_start, at) : null;
  return (
    <div class="far">
      {!isBatch(shown) && (
        <>
          <div class="line">
            <span class="big">{progressText(row)}</span>
            <span class="muted">
              {start !== null && `starts ${start}`}
              {rest === null ? (shown.status === "running" ? unknownLeft(shown.stalled ? null : shown.updated_at, at) : "") : rest.text}
              {rest?.range == null ? "" : ` (${rest.range})`}
            </span>
          </div>
          <Bar job={row} thick label="Progress" />
        </>
      )}
      <p class={`says${shown.status === "failed" ? " bad" : ""}`}>{plain(shown.activity)}</p>
    </div>
  );
}

function Actions({ shown }: { shown: JobRecord }) {
  const id = shown.job_id;
  const keyed = session.value?.auth === "keys";
  const failedItems = Number(shown.item_counts?.["failed"] ?? 0);
  const why = useSignal("");
  const retriable = mayWrite.value && canRetry(shown);
  useEffect(() => {
    why.value = "";
    if (retriable) void whyNotRetry(id).then((text) => (why.value = text));
  }, [id, shown.status, retriable]);
  const again = async (): Promise<void> => {
    const made = await retryFailed(id);
    if (made !== null) go({ job: made, part: null });
  };
  return (
    <div class="actions">
      {mayCancel.value && canCancel(shown) && (
        <button type="button" class="button danger" onClick={() => confirmCancel(shown)}>
          Cancel job
        </button>
      )}
      {mayWrite.value && canPause(shown) && (
        <button type="button" class="button" onClick={() => void setPaused(shown, !isPaused(shown))}>
          {isPaused(shown) ? "Resume" : "Pause"}
        </button>
      )}
      {retriable &&
        (why.value ? (
          <span>{plain(why.value)}</span>
        ) : (
          (shown.attempt ? [false, true] : [false]).map((fromStart) => (
            <button type="button" class="button" onClick={() => confirmRetry(shown, fromStart)}>
              Retry{fromStart && " from start"}
            </button>
          ))
        ))}
      {mayWrite.value && failedItems > 0 && shown.status !== "running" && (
        <button type="button" class="button" onClick={() => void again()}>
          Retry {formatCount(failedItems)} failed {failedItems === 1 ? "item" : "items"}
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
          <button type="button" class="button plain" onClick={() => void copy(asCurl(shown, keyed), "Command copied")}>
            curl
          </button>
          <button type="button" class="button plain" onClick={() => void copy(asPython(shown, keyed), "Code copied")}>
            Python
          </button>
          <button type="button" class="button plain" onClick={() => void copy(asSubmit(shown), "Command copied")}>
            submit again
          </button>
          <button type="button" class="button plain" onClick={() => void copy(JSON.stringify(shown, null, 2), "JSON copied")}>
            JSON
          </button>
        </div>
      </details>
      {session.value?.auth === "keys" && session.value.id !== "share" && (
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
      if (shown.status !== "completed") return <p class="muted">The result will appear when the job completes</p>;
      return shown.result_error === null ? <JsonView value={shown.result} label="Result" /> : <LostResult shown={shown} />;
    case "error":
      return <ErrorPart job={shown} />;
    case "params":
      return (
        <div class="job">
          <Details shown={shown} />
          <section class="section">
            <h2>Parameters</h2>
            <JsonView value={shown.params ?? {}} label="Parameters" />
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

/** Why a completed job has no result, and the text of what its handler returned. */
function LostResult({ shown }: { shown: JobRecord }) {
  return (
    <div class="job">
      <p class="says bad">The job completed, but its result was not stored: {plain(shown.result_error ?? "")}</p>
      <section class="section">
        <h2>Text of what the handler returned</h2>
        <p class="muted">For people only. It may be cut, and programs that ask for the result get an error.</p>
        <pre class="well" tabIndex={0} aria-label="Text of what the handler returned">
          {plain(shown.result_text ?? "")}
        </pre>
      </section>
    </div>
  );
}

/** When and how a job may run. */
function Details({ shown }: { shown: JobRecord }) {
  const time = (text: string | null) => text !== null && <span title={utcTime(text)}>{localTime(text)}</span>;
  const jobLink = (id: string | null) => id !== null && <Link to={{ job: id, part: null }}>{shortId(id)}</Link>;
  const facts = [
    ["Starts no earlier than", time(shown.not_before)],
    ["Start deadline", time(shown.not_after)],
    ["Priority", shown.priority !== 0 && String(shown.priority)],
    ["Unique key", shown.unique_key !== null && plain(shown.unique_key)],
    ["Parent", jobLink(shown.parent_id)],
    ["Failed items of", jobLink(shown.retry_of)],
    ["Lease expires", time(shown.lease_expires_at)],
    ["Trace", shown.trace],
  ] as const;
  const known = facts.filter(([, value]) => value);
  return known.length === 0 ? null : (
    <dl class="pairs">
      {known.map(([name, value]) => (
        <Fragment key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </Fragment>
      ))}
    </dl>
  );
}

function Skeleton() {
  return (
    <div class="job" aria-busy="true" aria-label="Loading">
      <div class="skeleton" />
      <div class="skeleton" />
    </div>
  );
}
