/** The error of a job: exception, frames, and what was known when the attempt ended. */
import { copy } from "../parts/copyable";
import { localTime, utcTime } from "../text/time";
import { plain } from "../text/plain";
import type { Failure, JobRecord } from "../wire/types";
import { readTraceback, runs, shortPath, type Frame } from "./traceback";

export function ErrorPart({ job }: { job: JobRecord }) {
  const failure = job.failure;
  if (failure === null) return <p class="muted">{job.error ?? "No error"}</p>;
  return (
    <div class="job">
      <FailureText failure={failure} error={job.error} />
      <CrashReport failure={failure} />
    </div>
  );
}

export function FailureText({ failure, error }: { failure: Failure; error: string | null }) {
  const head = plain(`${failure.type ?? failure.kind}: ${failure.message || (error ?? "")}`);
  const trace = failure.traceback === null ? null : readTraceback(failure.traceback);
  return (
    <div class="holder">
      <button
        type="button"
        class="button"
        aria-label="Copy the error"
        onClick={() => void copy(failure.traceback ?? head, "Error copied")}
      >
        Copy
      </button>
      <pre class="well bad trace" tabIndex={0} aria-label="Error">
        <span class="what">{head}</span>
        {trace?.parts.map((part, at) =>
          typeof part === "string" ? (
            part === trace.error ? null : (
              <div key={at} class="muted">
                {part}
              </div>
            )
          ) : (
            runs(part).map(([library, frames], run) =>
              library ? (
                <details key={`${at}.${run}`}>
                  <summary>
                    {"  "}
                    {frames.length} library {frames.length === 1 ? "frame" : "frames"}
                  </summary>
                  {frames.map((frame, one) => (
                    <FrameText key={one} frame={frame} />
                  ))}
                </details>
              ) : (
                frames.map((frame, one) => <FrameText key={`${at}.${run}.${one}`} frame={frame} />)
              ),
            )
          ),
        )}
      </pre>
    </div>
  );
}

function FrameText({ frame }: { frame: Frame }) {
  return (
    <div class={frame.library ? "library" : ""} title={frame.file}>
      {"  "}
      {shortPath(frame.file)}:{frame.line} in {frame.name}
      {frame.code.map((line) => `\n    ${line}`).join("")}
    </div>
  );
}

/** The kinds of failures, as people read them. */
export const REASONS: Record<string, string> = {
  error: "Exception raised",
  timeout: "Timed out",
  lost: "Worker lost",
  killed: "Process killed",
  crash_loop: "Crashed repeatedly",
  expired: "Start deadline passed",
  bad_parameters: "Invalid parameters",
};

function CrashReport({ failure }: { failure: Failure }) {
  const memory = failure.peak_memory;
  const facts: [string, string | null][] = [
    ["Reason", REASONS[failure.kind] ?? failure.kind],
    ["Ended by", failure.exit_signal ?? (failure.exit_code === null ? null : `exit code ${failure.exit_code}`)],
    ["Last stage", failure.last_stage],
    ["Last item", failure.last_item],
    ["Last checkpoint", failure.last_checkpoint_at === null ? null : localTime(failure.last_checkpoint_at)],
    ["Peak memory", memory === null ? null : `${Math.round(memory / 1048576).toLocaleString("en-US")} MiB`],
    ["Worker", failure.host === null ? null : `${failure.host}${failure.pid === null ? "" : ` (PID ${failure.pid})`}`],
    ["Attempt", failure.attempt === null ? null : String(failure.attempt)],
    ["Versions", failure.versions === null ? null : Object.entries(failure.versions).map((pair) => pair.join(" ")).join(", ")],
  ];
  return (
    <>
      <dl class="pairs">
        {failure.at !== null && (
          <>
            <dt>At</dt>
            <dd title={utcTime(failure.at)}>{localTime(failure.at)}</dd>
          </>
        )}
        {facts.map(
          ([name, value]) =>
            value !== null && (
              <>
                <dt>{name}</dt>
                <dd>{value}</dd>
              </>
            ),
        )}
      </dl>
      {failure.last_log.length > 0 && (
        <section class="section">
          <h2>Last lines of the log</h2>
          <pre class="well json" tabIndex={0}>
            {failure.last_log.join("\n")}
          </pre>
        </section>
      )}
    </>
  );
}
