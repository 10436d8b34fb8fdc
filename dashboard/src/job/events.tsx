/** What happened to a job: who cancelled it, when, and how that went; and its attempts. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { now } from "../live/clock";
import { forgetStop } from "../jobs/actions";
import { isAdmin } from "../shell/session";
import { clockTime, localTime, percent, span, utcTime } from "../text/time";
import { get, jobPath, words } from "../wire/api";
import type { Attempts, EventRecord, Failure, JobRecord, Receipt } from "../wire/types";
import { FailureText } from "./error";
import { events } from "./watched";

/** How a cancel, a timeout or a delete went: nothing is called stopped that was not seen to stop. */
export function ReceiptView({ job }: { job: JobRecord }) {
  const receipt = job.receipt as Receipt | null;
  if (receipt === null) return null;
  const asked = receipt.requested_at === null ? null : Date.parse(receipt.requested_at);
  const by = receipt.requested_by === null ? "" : ` by ${receipt.requested_by}`;
  const why = receipt.reason === null || receipt.reason === "" ? "" : `: ${receipt.reason}`;
  const took =
    receipt.stopped_at === null || asked === null ? "" : ` after ${span((Date.parse(receipt.stopped_at) - asked) / 1000)}`;
  return (
    <section class="section" aria-label="Receipt">
      <h2>Receipt</h2>
      <p title={utcTime(receipt.requested_at)}>
        Stop requested{by} {receipt.requested_at === null ? "" : `on ${localTime(receipt.requested_at)}`}
        {why}
      </p>
      {receipt.confirmed === null ? (
        <p class="of-stalled">
          {asked !== null && now.value - asked > 10_000 ? "The worker has not answered." : "Stopping… the code has not yet been seen to stop."}{" "}
          {isAdmin.value && asked !== null && now.value - asked > 10_000 && (
            <button type="button" class="button" onClick={() => void forgetStop(job.job_id)}>
              Forget the stop
            </button>
          )}
        </p>
      ) : (
        <p title={utcTime(receipt.stopped_at)}>
          {receipt.confirmed ? "Confirmed" : "Not confirmed"}: {receipt.how ?? "unknown"}
          {took}
        </p>
      )}
    </section>
  );
}

function told(event: EventRecord): string {
  const data = event.data ?? {};
  const bits: string[] = [];
  const by = data["stop_by"];
  if (typeof by === "string") bits.push(`by ${by}`);
  if (typeof data["stop_why"] === "string") bits.push(String(data["stop_why"]));
  if (typeof data["stop_how"] === "string") bits.push(String(data["stop_how"]));
  if (typeof data["worker"] === "string") bits.push(`on ${String(data["worker"])}`);
  if (typeof event.progress === "number") bits.push(`${percent(event.progress)}%`);
  if (typeof event.message === "string" && event.message !== "") bits.push(event.message);
  if (typeof data["error"] === "string") bits.push(String(data["error"]));
  if (event.kind === "log" && Array.isArray(data["lines"])) bits.push(`${data["lines"].length} lines`);
  return bits.join(" · ");
}

export function Events({ job }: { job: JobRecord }) {
  const all = events.value;
  return (
    <div class="job">
      <ReceiptView job={job} />
      {all.length === 0 ? (
        <p class="muted">No events are kept.</p>
      ) : (
        <div class="well scroll" tabIndex={0} role="group" aria-label="Events, newest first">
          <table class="table">
            <thead>
              <tr>
                <th class="num">Version</th>
                <th>Time</th>
                <th>What</th>
              </tr>
            </thead>
            <tbody>
              {all.toReversed().map((event) => (
                <tr key={event.version}>
                  <td class="num">{event.version}</td>
                  <td title={`${localTime(event.at ?? null)} · ${utcTime(event.at ?? null)}`}>{clockTime(event.at ?? null)}</td>
                  <td>
                    <b>{event.kind}</b> {told(event)}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </div>
  );
}

export function AttemptsPart({ job }: { job: JobRecord }) {
  const found = useSignal<Attempts | null>(null);
  const wrong = useSignal<string | null>(null);
  useEffect(() => {
    get<Attempts>(jobPath(job.job_id, "/attempts")).then(
      (answer) => (found.value = answer),
      (error: unknown) => (wrong.value = words(error)),
    );
  }, [job.job_id, job.attempt, job.status]);
  if (wrong.value !== null) return <p role="alert">{wrong.value}</p>;
  if (found.value === null) return <p class="muted">Loading…</p>;
  const failures = found.value.attempts as unknown as Failure[];
  return (
    <div class="job">
      <p>
        Attempt {found.value.attempt} of {found.value.max_attempts}
        {found.value.crashes > 0 ? `, ${found.value.crashes} ${found.value.crashes === 1 ? "crash" : "crashes"}` : ""}.
        {job.checkpoint_at === null ? "" : ` A next one goes on from the checkpoint of ${localTime(job.checkpoint_at)}.`}
      </p>
      {failures.length === 0 && <p class="muted">No attempt has failed.</p>}
      {failures.map((failure, at) => (
        <section class="section" key={at}>
          <h2 title={utcTime(failure.at ?? null)}>
            Attempt {failure.attempt ?? at + 1}
            {failure.at === undefined || failure.at === null ? "" : `, ended ${localTime(failure.at)}`}
          </h2>
          <FailureText failure={{ ...EMPTY, ...failure }} error={null} />
        </section>
      ))}
    </div>
  );
}

const EMPTY: Failure = {
  kind: "error",
  type: null,
  message: "",
  traceback: null,
  exit_signal: null,
  exit_code: null,
  last_stage: null,
  last_item: null,
  last_checkpoint_at: null,
  last_log: [],
  peak_memory: null,
  host: null,
  pid: null,
  versions: null,
  attempt: null,
  at: null,
};
