/** The events, the stop receipt and the attempts of a job. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { now } from "../live/clock";
import { forgetStop } from "../jobs/actions";
import { isAdmin } from "../shell/session";
import { plain, workerName } from "../text/plain";
import { attemptText } from "../text/progress";
import { clockTime, localTime, percent, preciseDuration, utcTime } from "../text/time";
import { get, jobPath, errorText } from "../wire/api";
import type { Attempts, EventRecord, Failure, JobRecord, Receipt } from "../wire/types";
import { FailureText } from "./error";
import { events } from "./record";

/** The text of a stop receipt: it says "stopped" only if the stop is confirmed. */
export function ReceiptView({ job }: { job: JobRecord }) {
  const receipt = job.receipt;
  if (receipt === null) return null;
  const asked = receipt.requested_at === null ? null : Date.parse(receipt.requested_at);
  const by = receipt.requested_by === null ? "" : ` by ${receipt.requested_by}`;
  const why = receipt.reason === null || receipt.reason === "" ? "" : `: ${receipt.reason}`;
  const took =
    receipt.stopped_at === null || asked === null ? "" : ` after ${preciseDuration((Date.parse(receipt.stopped_at) - asked) / 1000)}`;
  return (
    <section class="section" aria-label="Cancellation">
      <h2>Cancellation</h2>
      <p title={utcTime(receipt.requested_at)}>
        Stop requested{by} {receipt.requested_at === null ? "" : `on ${localTime(receipt.requested_at)}`}
        {why}
      </p>
      {receipt.confirmed === null ? (
        <p class="of-stalled">
          {receipt.how !== null
            ? `The code is ${receipt.how.replaceAll("_", " ")}.`
            : asked !== null && now.value - asked > 10_000
              ? "No response from the worker."
              : "Stopping… waiting for the worker to confirm."}{" "}
          {isAdmin.value && asked !== null && now.value - asked > 10_000 && (
            <button type="button" class="button" onClick={() => void forgetStop(job.job_id)}>
              Stop waiting for confirmation
            </button>
          )}
        </p>
      ) : (
        <p title={utcTime(receipt.stopped_at)}>
          {stopText(receipt)}
          {took}
        </p>
      )}
    </section>
  );
}

const STOPS: Record<string, string> = {
  cooperative: "Stopped cleanly",
  "task cancelled": "Stopped cleanly (task cancelled)",
  "never started": "Never started",
  "already finished": "Had already finished",
  terminated: "Terminated",
  killed: "Killed",
  "not supervised": "Not confirmed: the caller runs this job",
  "lease ran out": "Not confirmed: the lease expired",
  forgotten: "Not confirmed: no longer waiting",
};

function stopText({ how, confirmed }: Receipt): string {
  if (how === null) return confirmed ? "Stopped" : "Not confirmed";
  return STOPS[how.replaceAll("_", " ")] ?? `${confirmed ? "Stopped" : "Not confirmed"}: ${how.replaceAll("_", " ")}`;
}

function describe(event: EventRecord): string {
  const data = event.data ?? {};
  const bits: string[] = [];
  const by = data["stop_by"];
  if (typeof by === "string") bits.push(`by ${by}`);
  if (typeof data["stop_reason"] === "string") bits.push(String(data["stop_reason"]));
  if (typeof data["stop_how"] === "string") bits.push(data["stop_how"].replaceAll("_", " "));
  if (typeof data["worker"] === "string") bits.push(`on ${workerName(String(data["worker"]))}`);
  if (typeof event.progress === "number") bits.push(`${percent(event.progress)}%`);
  if (typeof event.message === "string" && event.message !== "") bits.push(plain(event.message));
  if (typeof data["error"] === "string") bits.push(String(data["error"]));
  if (event.kind === "log" && Array.isArray(data["lines"])) bits.push(`${data["lines"].length} ${data["lines"].length === 1 ? "line" : "lines"}`);
  return bits.join(" · ");
}

export function Events({ job }: { job: JobRecord }) {
  const all = events.value;
  return (
    <div class="job">
      <ReceiptView job={job} />
      {all.length === 0 ? (
        <p class="muted">No events recorded</p>
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
                    <b>{event.kind}</b> {describe(event)}
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
      (error: unknown) => (wrong.value = errorText(error)),
    );
  }, [job.job_id, job.attempt, job.status]);
  if (wrong.value !== null) return <p role="alert">{wrong.value}</p>;
  if (found.value === null) return <p class="muted">Loading…</p>;
  const failures = found.value.attempts as unknown as Failure[];
  return (
    <div class="job">
      <p>
        Attempt {attemptText(found.value.attempt, found.value.max_attempts)}
        {found.value.crashes > 0 ? `, ${found.value.crashes} ${found.value.crashes === 1 ? "crash" : "crashes"}` : ""}.
        {job.checkpoint_at === null ? "" : ` The next attempt resumes from the checkpoint at ${localTime(job.checkpoint_at)}.`}
      </p>
      {failures.length === 0 && <p class="muted">No failed attempts</p>}
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
