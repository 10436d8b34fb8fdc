/** The events and the stop receipt of a job. */
import { now } from "../live/clock";
import { forgetStop } from "../jobs/actions";
import { isAdmin } from "../shell/session";
import { plain, workerName } from "../text/plain";
import { plural } from "../text/plural";
import { clockTime, formatCount, localTime, percent, preciseDuration, utcTime } from "../text/time";
import type { EventRecord, JobRecord, Receipt } from "../wire/types";
import { events } from "./record";

/** The text of a stop receipt: it says "stopped" only if the stop is confirmed. */
export function ReceiptView({ job }: { job: JobRecord }) {
  const receipt = job.receipt;
  if (receipt === null) return null;
  const asked = receipt.requested_at === null ? null : Date.parse(receipt.requested_at);
  const by = receipt.requested_by === null ? "" : ` by ${receipt.requested_by}`;
  const why = receipt.reason === null || receipt.reason === "" ? "" : `: ${receipt.reason}`;
  // Nothing ran that had to stop.
  const idle = receipt.how === "never_started" || receipt.how === "already_finished";
  const took =
    receipt.stopped_at === null || asked === null || idle ? "" : ` after ${preciseDuration((Date.parse(receipt.stopped_at) - asked) / 1000)}`;
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
  if (typeof data["open_children"] === "number") bits.push(`with ${formatCount(data["open_children"])} open ${plural("child", data["open_children"])}`);
  if (event.kind === "log" && Array.isArray(data["lines"])) bits.push(`${formatCount(data["lines"].length)} ${plural("line", data["lines"].length)}`);
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
